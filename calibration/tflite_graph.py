"""Reading a TFLite file: which of its tensors are which of the ONNX file it was made from.

The converter renames tensors but keeps weights bit for bit, so a weight identifies its operation in both files. From
the linear operations the match spreads to what lies between them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from tinysam.calibration.arrays import Floats
from tinysam.calibration.onnx_graph import Graph, LinearNode
from tinysam.calibration.tflite_writer import kind_of

LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
BETWEEN = ("PAD", "TRANSPOSE", "GELU", "ADD")
"""Operations that are worth being integer when they lie between linear ones."""
MOVES = ("PAD", "TRANSPOSE")
"""Those of them that compute nothing."""
KINDS = {getattr(schema.BuiltinOperator, kind): kind for kind in (*LINEAR, *BETWEEN)}


@dataclass(frozen=True)
class TFLiteOperation:
    """An operation of a TFLite file all of whose activations are known in the ONNX file."""

    kind: str
    output: str
    """Name of its result."""
    activations: dict[str, str]
    """Activations that it reads and makes: name in the TFLite file -> name in the ONNX file."""
    relu: bool = False
    """Whether the operation ends with a ReLU, which is a node of its own in the ONNX file."""
    node: str = ""
    """Name of a linear operation's twin."""


def weight_key(weight: npt.NDArray[Any]) -> bytes:
    """Identifies a weight whose axes are (outputs, inputs, ...)."""
    return str(weight.shape).encode() + np.ascontiguousarray(weight, np.float32).tobytes()


def as_onnx(weight: Floats, kind: str) -> Floats:
    """A TFLite weight with ONNX's order of axes."""
    if kind == "CONV_2D":  # (outputs, height, width, inputs)
        return weight.transpose(0, 3, 1, 2)
    if kind == "DEPTHWISE_CONV_2D":  # (1, height, width, outputs)
        return weight.transpose(3, 0, 1, 2)
    return weight


def float_data(model: Any, tensor: Any) -> Floats | None:
    """Values of a stored float tensor, None for an activation."""
    data = model.buffers[tensor.buffer].data
    if data is None or tensor.type != schema.TensorType.FLOAT32:
        return None
    values: Floats = np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32).reshape(tensor.shape)
    return values


class SubgraphMatcher:
    """Matches one signature with the ONNX graph."""

    def __init__(self, model: Any, subgraph: Any, graph: Graph) -> None:
        self.model, self.subgraph, self.graph = model, subgraph, graph
        self.codes = [kind_of(code) for code in model.operatorCodes]
        self.twins = {weight_key(node.weight): node for node in graph.linear_nodes()}
        self.onnx_of: dict[str, str] = {}

    def name(self, index: int) -> str:
        """Name of a tensor."""
        text: str = self.subgraph.tensors[index].name.decode()
        return text

    def twin(self, operation: Any, kind: str) -> LinearNode | None:
        """The ONNX node with the same weight."""
        weight = float_data(self.model, self.subgraph.tensors[operation.inputs[1]])
        return None if weight is None else self.twins.get(weight_key(as_onnx(weight, kind)))

    def linear(self, operation: Any, kind: str) -> TFLiteOperation | None:
        """A linear operation whose twin was found; its tensors are known from now on."""
        twin = self.twin(operation, kind)
        if twin is None:
            return None
        source, output = self.name(operation.inputs[0]), self.name(operation.outputs[0])
        relu = operation.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.RELU
        self.onnx_of[source] = twin.source
        if not relu:
            self.onnx_of[output] = twin.output
        return TFLiteOperation(kind, output, {source: twin.source, output: twin.output}, relu, twin.name)

    def between(self, operation: Any, kind: str) -> TFLiteOperation | None:
        """An operation between linear ones whose result is known; GELU, PAD and TRANSPOSE make their source known."""
        output = self.name(operation.outputs[0])
        known = self.onnx_of.get(output)
        if known is None:
            return None
        sources = [self.name(i) for i in operation.inputs[: 2 if kind == "ADD" else 1]]
        if kind in MOVES:
            self.onnx_of.setdefault(sources[0], known)
        maker = self.graph.makers.get(known)
        if kind == "GELU" and maker is not None and maker.op_type == "Gelu":
            self.onnx_of.setdefault(sources[0], maker.input[0])
        if any(source not in self.onnx_of for source in sources):
            return None
        return TFLiteOperation(kind, output, {name: self.onnx_of[name] for name in (*sources, output)})

    def kinds(self) -> list[tuple[Any, str | None]]:
        """All operations with their kind, None for kinds that stay float."""
        return [(op, KINDS.get(self.codes[op.opcodeIndex])) for op in self.subgraph.operators]

    def operations(self) -> list[TFLiteOperation]:
        """All operations whose activations are known, from the last to the first."""
        kinds = self.kinds()
        found = [self.linear(op, kind) for op, kind in kinds if kind in LINEAR]
        for op, kind in kinds:
            if kind == "TRANSPOSE" and self.name(op.inputs[0]) in self.onnx_of:
                self.onnx_of.setdefault(self.name(op.outputs[0]), self.onnx_of[self.name(op.inputs[0])])
        # backwards, because a GELU's source becomes known through its result
        found += [self.between(op, kind) for op, kind in reversed(kinds) if kind in BETWEEN]
        return [operation for operation in found if operation is not None]


def integer_operations(content: bytes, graph: Graph) -> list[TFLiteOperation]:
    """Operations of all signatures that can become integer with ranges found on the ONNX graph."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    return [op for subgraph in model.subgraphs for op in SubgraphMatcher(model, subgraph, graph).operations()]


def layers_of(content: bytes, signature: str) -> list[TFLiteOperation]:
    """Linear layers of one signature, whether the ONNX graph has them or not."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (index,) = (one.subgraphIndex for one in model.signatureDefs if one.signatureKey == signature.encode())
    subgraph = model.subgraphs[index]
    kinds = {i: KINDS.get(kind_of(code)) for i, code in enumerate(model.operatorCodes)}
    return [
        TFLiteOperation(kind, subgraph.tensors[op.outputs[0]].name.decode(), {})
        for op in subgraph.operators
        if (kind := kinds[op.opcodeIndex]) in LINEAR
    ]
