"""The same graph in operations that ONNX Runtime runs with fewer instructions on ARM.

Counted on a Cortex-A76 (`make arm-cost`), instructions per value:

* An integer convolution gives integers, and so a GELU behind it has to be integer too: a table of a sigmoid and a
  product take 14. As a linear layer a convolution of one pixel gives the float result that its sums have anyway.
* GELU by `erf` takes 22, by `tanh` 12. They differ by 0.0005 at most (Hendrycks and Gimpel 2016, arXiv:1606.08415,
  section 2), far below a step of 8 bits.
* LayerNormalization of rows is scalar code and takes 14; InstanceNormalization, which is the same with the rows as
  channels, takes 4.
* Exchanging the two middle axes of an 8-bit tensor takes 5, two exchanges of the last two axes 1 each.

Only what has fixed shapes is rewritten.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, shape_inference

HEADS = [0, 2, 1, 3]
"""The order of axes that brings heads before positions, or back."""
MOST_CHANNELS = 64
"""Longer rows are copied as a whole, which is cheaper."""
TO_ROWS, TO_MAP, TURN = [0, 2, 3, 1], [0, 3, 1, 2], [0, 2, 1]
"""Orders of axes: channels last, channels first, and the last two of three exchanged."""


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


class Cheap(Rewriter):
    """The rules for graphs that are quantized already."""

    def is_all(self, tensor: str, value: float) -> bool:
        """Whether this is a constant that holds one value throughout."""
        return tensor in self.constants and bool(np.all(numpy_helper.to_array(self.constants[tensor]) == value))

    def norm(self, node: onnx.NodeProto) -> bool:
        """A layer norm over the rows of a matrix, without scale and bias."""
        source, scale, *bias = node.input
        shape = self.shape(source)
        plain = self.is_all(scale, 1) and all(self.is_all(b, 0) for b in bias)
        if shape is None or len(shape) != 2 or not plain:
            return False
        (output,), rows = node.output, shape[0]
        inputs = [
            self.reshape(source, [1, *shape], f"{output}.rows"),
            self.constant(f"ones.{rows}", np.ones(rows, np.float32)),
            self.constant(f"zeros.{rows}", np.zeros(rows, np.float32)),
        ]
        (epsilon,) = (attribute.f for attribute in node.attribute if attribute.name == "epsilon")
        normalized = f"{output}.normalized"
        self.nodes.append(helper.make_node("InstanceNormalization", inputs, [normalized], node.name, epsilon=epsilon))
        self.reshape(normalized, shape, output)
        return True

    def heads(self, node: onnx.NodeProto) -> bool:
        """An exchange of the middle axes of four, (n, a, b, c) -> (n, b, a, c), whose rows are short."""
        shape = self.shape(node.input[0])
        (order,) = (list(attribute.ints) for attribute in node.attribute if attribute.name == "perm")
        if shape is None or order != HEADS or shape[3] > MOST_CHANNELS:
            return False
        (n, a, b, c), (output,) = shape, node.output
        wide, tall = ([n, a, b * c], [n * b, c, a]) if a > b else ([n * a, b, c], [n, a * c, b])
        turned = self.transpose(self.reshape(node.input[0], wide, f"{output}.wide"), TURN, f"{output}.turned")
        back = self.transpose(self.reshape(turned, tall, f"{output}.tall"), TURN, f"{output}.back")
        self.reshape(back, [n, b, a, c], output)
        return True

    def gelu(self, node: onnx.NodeProto) -> bool:
        """The form with tanh, of the same node."""
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("approximate", "tanh"))
        return False


class LinearConvolutions(Rewriter):
    """The rule for float graphs.

    Attributes:
        sources: input of a new linear layer -> the tensor of the old graph with the same values.
    """

    def __init__(self, model: onnx.ModelProto, keep: frozenset[str]) -> None:
        super().__init__(model)
        self.keep, self.sources = keep, dict[str, str]()

    def convolution(self, node: onnx.NodeProto) -> bool:
        """A convolution of one pixel at stride 1, as transposes and a linear layer of its name."""
        shape, weight = self.shape(node.input[0]), self.constants.get(node.input[1])
        lists = {attribute.name: list(attribute.ints) or [attribute.i] for attribute in node.attribute}
        ones = [n for name in ("kernel_shape", "strides", "dilations", "group") for n in lists.get(name, [])]
        plain = set(ones) <= {1} and not any(lists.get("pads", []))
        if node.name in self.keep or shape is None or weight is None or list(weight.dims[2:]) != [1, 1] or not plain:
            return False
        (source, _, *bias), (output,) = node.input, node.output
        _, inputs, height, width = shape
        outputs = weight.dims[0]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).reshape(outputs, inputs), weight.name))
        pixels = self.transpose(source, TO_ROWS, f"{output}.pixels")
        rows = self.reshape(pixels, [height * width, inputs], f"{output}.source")
        self.sources[rows] = source
        result = f"{output}.rows"
        self.nodes.append(helper.make_node("Gemm", [rows, weight.name, *bias], [result], node.name, transB=1))
        self.transpose(self.reshape(result, [1, height, width, outputs], f"{output}.map"), TO_MAP, output)
        return True


def linear_convolutions(model: onnx.ModelProto, keep: frozenset[str]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A float graph with its convolutions of one pixel as linear layers, besides the nodes `keep`.

    Returns:
        The graph, and the inputs of the new layers: their name -> the tensor of the old graph with the same values.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    rewriter = LinearConvolutions(changed, keep)
    rewriter.run({"Conv": rewriter.convolution})
    return changed, rewriter.sources


def make_cheap(model: onnx.ModelProto) -> None:
    """Rewrites a quantized graph in place."""
    rewriter = Cheap(model)
    rewriter.run({"LayerNormalization": rewriter.norm, "Transpose": rewriter.heads, "Gelu": rewriter.gelu})
