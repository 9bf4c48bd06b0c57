"""Transpositions that undo each other, taken out of a TFLite file.

onnx2tf turns a map channel-first for a sum and the GELU behind it, and back for the next convolution. A sum, a product
and a GELU give the same in any order of axes, so they can take the map as it was. A map that is read in both orders may
be turned once more than before.
"""

from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tinysam.calibration.tflite_constants import to_bytes
from tinysam.calibration.tflite_writer import SubgraphWriter

Kind = schema.BuiltinOperator
ELEMENTWISE = (Kind.ADD, Kind.SUB, Kind.MUL, Kind.GELU)
"""Operations that look at one value of each operand at a time."""


class Turned(NamedTuple):
    """What a tensor is a transposition of."""

    source: int
    order: tuple[int, ...]
    """Axes of the source, in the order of the tensor's."""


class Straightener(SubgraphWriter):
    """Rewrites one signature: a transposition is written where something that needs it reads its result."""

    def __init__(self, model: Any, subgraph: Any) -> None:
        super().__init__(model, subgraph)
        self.turned: dict[int, Turned] = {}
        self.written: set[int] = set()
        self.same: dict[int, int] = {}
        """Results of transpositions back -> the tensor whose axes they have again."""

    def write(self) -> None:
        """Goes through the operations in their order."""
        for operation in self.subgraph.operators:
            operation.inputs = np.array([self.same.get(int(i), int(i)) for i in operation.inputs], np.int32)
            if not (self.transpose(operation) or self.elementwise(operation)):
                for tensor in operation.inputs:
                    self.need(int(tensor))
                self.operations.append(operation)
        for tensor in self.subgraph.outputs:
            self.need(int(tensor))
        self.subgraph.operators = self.operations

    def transpose(self, operation: Any) -> bool:
        """Notes a transposition in place of writing it."""
        if self.kind(operation) != Kind.TRANSPOSE:
            return False
        source, output = int(operation.inputs[0]), int(operation.outputs[0])
        axes = self.integers(operation.inputs[1])
        if axes is None:
            return False
        order = tuple(int(axis) for axis in axes)
        if source in self.turned:
            before = self.turned[source]
            source, order = before.source, tuple(before.order[axis] for axis in order)
        if order == tuple(range(len(order))) and output not in self.subgraph.outputs:
            self.same[output] = source
        else:
            self.turned[output] = Turned(source, order)
        return True

    def elementwise(self, operation: Any) -> bool:
        """Computes with the operands before they were turned, if all were turned alike."""
        if self.kind(operation) not in ELEMENTWISE or not all(int(i) in self.turned for i in operation.inputs):
            return False
        operands = [self.turned[int(i)] for i in operation.inputs]
        shapes = {self.shape(operand.source) for operand in operands}
        if len({operand.order for operand in operands}) > 1 or len(shapes) > 1:
            return False
        output = int(operation.outputs[0])
        twin = self.subgraph.tensors[output]
        made = self.new_tensor(twin.name + b";straight", shapes.pop(), twin.type, quantization=twin.quantization)
        self.turned[output] = Turned(made, operands[0].order)
        operation.inputs = np.array([operand.source for operand in operands], np.int32)
        operation.outputs = np.array([made], np.int32)
        self.operations.append(operation)
        return True

    def need(self, tensor: int) -> None:
        """Writes the transposition whose result is read."""
        if tensor in self.turned and tensor not in self.written:
            source, order = self.turned[tensor]
            name = self.subgraph.tensors[tensor].name + b";order"  # no two tensors of a file have the same name
            self.emit(Kind.TRANSPOSE, [source, self.new_constant(name, order)], tensor)
            self.written.add(tensor)


def straighten(content: bytes) -> bytes:
    """A float file without transpositions that undo each other."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for subgraph in model.subgraphs:
        Straightener(model, subgraph).write()
    return to_bytes(model)
