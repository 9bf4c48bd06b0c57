"""Rewriting an ONNX graph in place, node by node."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, shape_inference


def put_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Replaces the nodes of a graph; some of the new ones may be its own."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Removes the initializers that no node reads any more."""
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


class Rewriter:
    """Rewrites one graph in place, node by node."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        known = shape_inference.infer_shapes(model).graph
        self.shapes = {
            value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in (*known.value_info, *known.input, *known.output)
        }
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []

    def shape(self, tensor: str) -> list[int] | None:
        """Lengths of a tensor's axes, None if one is not fixed."""
        lengths = self.shapes.get(tensor)
        return lengths if lengths and all(lengths) else None

    def constant(self, name: str, values: npt.NDArray[Any]) -> str:
        """Adds an initializer once."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(values, name)
            self.graph.initializer.append(self.constants[name])
        return name

    def reshape(self, source: str, shape: list[int], output: str) -> str:
        """Appends a Reshape; its output."""
        target = self.constant("shape." + "x".join(map(str, shape)), np.array(shape, np.int64))
        self.nodes.append(helper.make_node("Reshape", [source, target], [output], output))
        return output

    def transpose(self, source: str, order: list[int], output: str) -> str:
        """Appends a Transpose; its output."""
        self.nodes.append(helper.make_node("Transpose", [source], [output], output, perm=order))
        return output

    def run(self, rules: dict[str, Callable[[onnx.NodeProto], bool]]) -> None:
        """Rewrites all nodes.

        Args:
            rules: operation -> what appends other nodes in place of one of its kind, or says that it stays.
        """
        for node in self.graph.node:
            rule = rules.get(node.op_type)
            if rule is None or not rule(node):
                self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
