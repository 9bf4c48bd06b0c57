"""Reading an ONNX graph: who makes and who reads each tensor, and which nodes can become integer."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from tinysam.calibration.operations import EITHER, Engine

MOVES = ("Reshape", "Transpose", "Slice")
"""Operations that move values without changing them; ONNX Runtime runs them on integers."""


@dataclass(frozen=True)
class LinearNode:
    """A Conv or Gemm with a stored weight."""

    name: str
    source: str
    """Activation that it reads."""
    output: str
    weight: npt.NDArray[np.float32]
    """(outputs, inputs, height, width) or (outputs, inputs)."""
    parameter: str
    """Name of the weight."""

    @property
    def module(self) -> str:
        """Path of the module whose weight it is."""
        return self.parameter.removesuffix(".weight")


class Graph:
    """Lookups over one model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {output.name for output in model.graph.output}
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for tensor in node.input:
                self.readers.setdefault(tensor, []).append(node)

    def feeds_only(self, tensor: str, kind: str) -> bool:
        """Whether all readers of a tensor are of one operation."""
        readers = self.readers.get(tensor, [])
        return bool(readers) and tensor not in self.outputs and all(node.op_type == kind for node in readers)

    def origin(self, tensor: str) -> str:
        """The tensor whose values these are, before any reshaping, transposing and cutting."""
        while tensor in self.makers and self.makers[tensor].op_type in MOVES:
            tensor = self.makers[tensor].input[0]
        return tensor

    def final_readers(self, tensor: str) -> list[onnx.NodeProto]:
        """Nodes that compute with a tensor, maybe after reshaping, transposing and cutting it."""
        found = []
        for reader in self.readers.get(tensor, []):
            found += self.final_readers(reader.output[0]) if reader.op_type in MOVES else [reader]
        return found

    def feeds_nodes(self, tensor: str, names: set[str]) -> bool:
        """Whether nothing but the nodes of these names computes with a tensor."""
        readers = self.final_readers(tensor)
        return bool(readers) and all(reader.name in names for reader in readers)

    def is_attention(self, node: onnx.NodeProto, leaving: set[str]) -> bool:
        """Whether a node multiplies queries with keys, or attention weights with values, of integer Gemms."""
        if node.op_type != "MatMul":
            return False
        left, right = (self.origin(tensor) for tensor in node.input)
        weights = left in self.makers and self.makers[left].op_type == "Softmax"
        return right in leaving and (left in leaving or weights)

    def is_joint(self, node: onnx.NodeProto, products: set[str], keep_float: frozenset[str]) -> bool:
        """Whether a node puts integer products together for linear layers that are integer, too."""
        readers, output = self.readers.get(node.output[0], []), node.output[0]
        if node.op_type != "Concat" or output in self.outputs or not readers:
            return False
        integer = all(self.is_linear(reader) and reader.name not in keep_float for reader in readers)
        return integer and all(self.origin(tensor) in products for tensor in node.input)

    def is_linear(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a Conv or Gemm whose weight is stored in the file."""
        return node.op_type in ("Conv", "Gemm") and node.input[1] in self.constants

    def linear_nodes(self) -> list[LinearNode]:
        """Conv and Gemm nodes that can become integer, in order of execution; what a graph output needs stays float."""
        return [
            LinearNode(
                node.name,
                node.input[0],
                node.output[0],
                numpy_helper.to_array(self.constants[node.input[1]]),
                node.input[1],
            )
            for node in self.integer_nodes(frozenset())
            if self.is_linear(node)
        ]

    @staticmethod
    def is_depthwise(node: onnx.NodeProto) -> bool:
        """Whether a node is a convolution with groups."""
        return node.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in node.attribute)

    def is_isolated(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a depthwise convolution of the residual stream: float before and behind it."""
        maker = self.makers.get(self.origin(node.input[0]))
        integer = ("Conv", "Gemm", "Gelu")
        readers = self.final_readers(node.output[0])
        before = maker is not None and maker.op_type in integer
        return self.is_depthwise(node) and not before and not any(reader.op_type in integer for reader in readers)

    def is_float_depthwise(self, node: onnx.NodeProto, engine: Engine) -> bool:
        """Whether a node is a depthwise convolution that stays float in one engine."""
        if engine.between or not self.is_depthwise(node):
            return self.is_isolated(node)
        maker = self.makers.get(node.input[0])
        return maker is None or maker.op_type != "Gelu"

    def feeds_linear(self, tensor: str) -> bool:
        """Whether nothing but linear layers computes with a tensor."""
        readers = self.final_readers(tensor)
        return bool(readers) and tensor not in self.outputs and all(map(self.is_linear, readers))

    def integer_nodes(
        self, keep_float: frozenset[str], engine: Engine = EITHER, attention: bool = False
    ) -> list[onnx.NodeProto]:
        """Nodes that become integer by the rules of `tinysam.calibration.operations`, in order of execution.

        Args:
            keep_float: names of nodes that stay float in any case.
            engine: whose rules.
            attention: whether matrix products between queries, keys, attention weights and values may be among them.
        """
        chosen: list[onnx.NodeProto] = []
        leaving: set[str] = set()  # outputs of chosen nodes, which an integer GELU can read
        multiplied: set[str] = set()  # outputs of integer products of activations
        for node in self.nodes:
            if node.name in keep_float or node.output[0] in self.outputs:
                continue
            gelu = node.op_type == "Gelu" and node.input[0] in leaving
            gelu = gelu and (engine.between or self.feeds_linear(node.output[0]))
            residual = node.op_type == "Add" and self.feeds_only(node.output[0], "Gelu") and set(node.input) <= leaving
            between = gelu or (engine.between and residual)
            products = attention and engine.attention and self.is_attention(node, leaving)
            linear = self.is_linear(node) and not self.is_float_depthwise(node, engine)
            if linear or between or products or self.is_joint(node, multiplied, keep_float):
                chosen.append(node)
                (multiplied if products else leaving).add(node.output[0])
        return chosen

    def activations(self, nodes: list[onnx.NodeProto]) -> list[str]:
        """Tensors that enter or leave these nodes and are not stored in the file."""
        found: dict[str, None] = {}
        for node in nodes:
            for tensor in (*node.input, *node.output):
                if tensor and tensor not in self.constants:
                    found[tensor] = None
        return list(found)
