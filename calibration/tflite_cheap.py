"""The same graph in operations that LiteRT runs with fewer instructions on ARM.

Counted on a Cortex-A76 (`make arm-cost`), instructions per value in fp16:

* XNNPACK pads a map pixel by pixel, which takes 23 with 4 channels and 6 with 16. Height and width as the two axes of
  a matrix take less than 1.
* The converter writes a layer norm as ten operations, which take 6.7. By the centred values there are seven, which take
  4.9, and fp16 rounds no difference of two products. The mean of `c * c` would be computed in fp32, with conversions
  around it, the mean of a squared difference is not.
* Unsigned bytes to floats take 5.9, by signed bytes 3.2.

Scale and shift of a layer norm that are 1 and 0 throughout are left out.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tinysam.calibration.arrays import Floats
from tinysam.calibration.tflite_graph import float_data
from tinysam.calibration.tflite_writer import SubgraphWriter

Op = schema.BuiltinOperator
NORM = (Op.MEAN, Op.SQUARED_DIFFERENCE, Op.MEAN, Op.ADD, Op.RSQRT, Op.MUL, Op.MUL, Op.MUL, Op.SUB, Op.ADD)
"""A layer norm as the converter writes it."""
SIGN = 128
"""How much less a signed byte is than an unsigned one."""


class CheapWriter(SubgraphWriter):
    """Rewrites one signature in place, operation by operation."""

    def __init__(self, model: Any, subgraph: Any) -> None:
        super().__init__(model, subgraph)
        self.readers = Counter(int(i) for operation in subgraph.operators for i in operation.inputs)

    def write(self) -> None:
        """Replaces the operations."""
        operations = list(self.subgraph.operators)
        while operations:
            taken = self.norm(operations[: len(NORM)]) or self.pad(operations[0]) or self.bytes(operations[0])
            if not taken:
                self.operations.append(operations[0])
            del operations[: taken or 1]
        self.subgraph.operators = self.operations

    def pad(self, operation: Any) -> int:
        """Height and width of one map; how many operations were replaced."""
        if self.kind(operation) != Op.PAD:
            return 0
        (source, amounts), (output,) = operation.inputs, operation.outputs
        edges, shape, padded = self.integers(amounts), self.shape(source), self.shape(output)
        if edges is None or len(shape) != 4 or shape[0] != 1 or edges[[0, 3]].any():
            return 0
        channels = shape[3]
        rows = self.reshape(source, self.tensor(source, [shape[1], shape[2] * channels], "rows"))
        amount = self.new_constant(b"edges", np.stack([edges[1], edges[2] * channels]))
        wide = self.tensor(output, [padded[1], padded[2] * channels], "rows")
        self.reshape(self.emit(Op.PAD, [rows, amount], wide), output)
        return 1

    def norm(self, operations: list[Any]) -> int:
        """A layer norm, which begins with the first operation; how many were replaced."""
        if tuple(map(self.kind, operations)) != NORM or not self.is_norm(operations):
            return 0
        mean, difference, variance, above, root, scaled, product, _, rest, last = operations
        scale, shift, (output,) = scaled.inputs[1], rest.inputs[0], last.outputs
        self.operations += [mean, difference, variance, above, root]
        steps = [(Op.MUL, root.outputs[0])]
        steps += [(Op.MUL, scale)] * (not self.is_all(scale, 1)) + [(Op.ADD, shift)] * (not self.is_all(shift, 0))
        values = self.emit(Op.SUB, difference.inputs, product.outputs[0])
        for kind, operand in steps[:-1]:
            values = self.emit(kind, [values, operand], self.tensor(output, self.shape(output), "step"))
        kind, operand = steps[-1]
        self.emit(kind, [values, operand], output)
        return len(NORM)

    def is_norm(self, operations: list[Any]) -> bool:
        """Whether ten operations read each other as in a layer norm, and nobody else reads what will be gone."""
        mean, difference, variance, above, root, scaled, product, shift, rest, last = operations
        made = {id(operation): operation.outputs[0] for operation in operations}
        chain = ((difference, variance), (variance, above), (above, root), (root, scaled))
        wired = all(reader.inputs[0] == made[id(maker)] for maker, reader in chain)
        pairs = (
            (difference, mean.inputs[0], made[id(mean)]),
            (product, mean.inputs[0], made[id(scaled)]),
            (shift, made[id(mean)], made[id(scaled)]),
            (last, made[id(product)], made[id(rest)]),
        )
        wired = wired and all(list(reader.inputs) == sources for reader, *sources in pairs)
        gone = {made[id(scaled)]: 2, made[id(product)]: 1, made[id(shift)]: 1, made[id(rest)]: 1}
        return wired and rest.inputs[1] == made[id(shift)] and all(self.readers[t] == n for t, n in gone.items())

    def bytes(self, operation: Any) -> int:
        """Unsigned bytes that become floats; how many operations were replaced."""
        source = operation.inputs[0]
        if self.kind(operation) != Op.DEQUANTIZE or self.subgraph.tensors[source].type != schema.TensorType.UINT8:
            return 0
        signed = self.tensor(source, self.shape(source), "signed")
        tensor, old = self.subgraph.tensors[signed], self.subgraph.tensors[source].quantization
        tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = old.scale, [int(old.zeroPoint[0]) - SIGN]
        self.emit(Op.DEQUANTIZE, [self.emit(Op.QUANTIZE, [source], signed)], operation.outputs[0])
        return 1

    def is_all(self, tensor: int, value: float) -> bool:
        """Whether this is a float constant that holds one value throughout."""
        values: Floats | None = float_data(self.model, self.subgraph.tensors[tensor])
        return values is not None and bool(np.all(values == value))

    def tensor(self, like: int, shape: Sequence[int], name: str) -> int:
        """A new activation with type and range of another; its index."""
        twin = self.subgraph.tensors[like]
        return self.new_tensor(twin.name + f";{name}".encode(), shape, twin.type, quantization=twin.quantization)

    def reshape(self, source: int, output: int) -> int:
        """Appends a RESHAPE; its output."""
        return self.emit(Op.RESHAPE, [source, self.new_constant(b"shape", self.shape(output))], output)


def make_cheap(model: Any) -> None:
    """Rewrites a flatbuffer object in place."""
    for subgraph in model.subgraphs:
        CheapWriter(model, subgraph).write()
