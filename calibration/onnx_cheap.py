"""The same graph in operations that ONNX Runtime runs with fewer instructions on ARM.

Counted on a Cortex-A76 (`make arm-cost`), instructions per value:

* An integer convolution gives integers, and dequantizing them takes 1.4. As a linear layer a convolution of one pixel
  gives the float result that its sums have anyway.
* GELU by `erf` takes 22, by `tanh` 12. They differ by 0.0005 at most (Hendrycks and Gimpel 2016, arXiv:1606.08415,
  section 2), far below a step of 8 bits.
* LayerNormalization of rows is scalar code and takes 14; InstanceNormalization, which is the same with the rows as
  channels, takes 4 to 7, and 1 each for scale and bias.
* Exchanging the two middle axes of an 8-bit tensor takes 5, two exchanges of the last two axes 1 each.

Only what has fixed shapes is rewritten, and layer norms of the (P, L, dim) cells of P prompts.

Some float operations may compute in fp16, for which ONNX Runtime has fast kernels of a few: GELU takes 5.3, a
conversion 1.5 each way, a depthwise convolution of stride 2 17 in place of 71, of stride 1 14 in place of 12. The
second convolution of nano takes 14 million in place of 32, one of one pixel from 32 to 128 channels 10 in place of 20.
All else is no cheaper or scalar: additions and products (43), quantizing (34), softmax, layer norms, linear layers.
The products of activations of nano's decoder take 11 million fewer, conversions included; its GELU stays in fp32, as
it would take 9 million more on processors without fp16. On those (Cortex-A72, x86) ONNX Runtime computes the same
operations in fp32.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from tinysam.calibration.onnx_graph import Graph

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


def attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """A number among the attributes of a node."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


class Cheap(Rewriter):
    """The rules for graphs that are quantized already."""

    def is_all(self, tensor: str, value: float) -> bool:
        """Whether this is a constant that holds one value throughout."""
        return tensor in self.constants and bool(np.all(numpy_helper.to_array(self.constants[tensor]) == value))

    def norm(self, node: onnx.NodeProto) -> bool:
        """A layer norm over the last axis."""
        source, scale, *bias = node.input
        shape = self.shapes.get(source, [])
        prompts = len(shape) == 3 and not shape[0] and all(shape[1:])
        (epsilon, axis) = (attribute(node, "epsilon", 1e-5), attribute(node, "axis", -1))
        if not (prompts or self.shape(source)) or axis not in (-1, len(shape) - 1):
            return False
        (output,), rows = node.output, math.prod(shape[prompts:-1])
        inputs = [
            source if prompts else self.reshape(source, [1, rows, shape[-1]], f"{output}.rows"),
            self.constant(f"ones.{rows}", np.ones(rows, np.float32)),
            self.constant(f"zeros.{rows}", np.zeros(rows, np.float32)),
        ]
        affine = [("Mul", scale)] * (not self.is_all(scale, 1))
        affine += [("Add", b) for b in bias if not self.is_all(b, 0)]
        names = [output, *(f"{output}.{kind}" for kind, _ in affine)][::-1]  # the last one has the name of the output
        normalized = names[0] if prompts else f"{output}.normalized"
        self.nodes.append(helper.make_node("InstanceNormalization", inputs, [normalized], node.name, epsilon=epsilon))
        if not prompts:
            self.reshape(normalized, shape, names[0])
        for (kind, constant), before, after in zip(affine, names[:-1], names[1:], strict=True):
            self.nodes.append(helper.make_node(kind, [before, constant], [after], after))
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


class Halves(Rewriter):
    """Rewrites GELU, and convolutions before and behind it; or products of activations, and transposes before them.

    Args:
        model: quantized graph.
        kinds: which of `Gelu`, `Conv`, `MatMul`.
    """

    def __init__(self, model: onnx.ModelProto, kinds: tuple[str, ...]) -> None:
        super().__init__(model)
        self.kinds = kinds
        self.lookup = Graph(model)
        self.inputs = {value.name for value in model.graph.input}
        self.halves = dict[str, str]()
        """Float tensor -> the same in fp16."""

    def cast(self, source: str, output: str, kind: int) -> str:
        """Appends a conversion; its output."""
        self.nodes.append(helper.make_node("Cast", [source], [output], output, to=kind))
        return output

    def half(self, tensor: str) -> str:
        """A tensor in fp16, converted on first use; constants once and for all."""
        name = f"{tensor}.half"
        if tensor in self.constants:
            return self.constant(name, numpy_helper.to_array(self.constants[tensor]).astype(np.float16))
        if tensor not in self.halves:
            self.halves[tensor] = self.cast(tensor, name, TensorProto.FLOAT16)
        return self.halves[tensor]

    def is_half(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes in fp16: not the convolution of the image, which gains nothing by it."""
        if node.op_type == "Transpose":
            readers = self.lookup.readers.get(node.output[0], [])
            return bool(readers) and all(reader.op_type == "MatMul" and self.is_half(reader) for reader in readers)
        if node.op_type not in self.kinds:
            return False
        if node.op_type == "MatMul":
            return not any(map(self.is_stored, node.input))
        if node.op_type == "Gelu":
            return True
        convolution = self.lookup.is_linear(node) and node.input[0] not in self.inputs
        return convolution and (node.input[0] in self.halves or self.lookup.feeds_only(node.output[0], "Gelu"))

    def is_stored(self, tensor: str) -> bool:
        """Whether a tensor is a constant, also one of fewer bits."""
        maker = self.lookup.makers.get(tensor)
        return tensor in self.constants or (maker is not None and maker.input[0] in self.constants)

    def compute(self, node: onnx.NodeProto) -> bool:
        """Appends a node in fp16, and its result in fp32 if somebody reads that."""
        if not self.is_half(node):
            return False
        (output,) = node.output
        changed = onnx.NodeProto.FromString(node.SerializeToString())
        changed.input[:], changed.output[:] = [self.half(tensor) for tensor in node.input], [f"{output}.half"]
        self.nodes.append(changed)
        self.halves[output] = changed.output[0]
        if output in self.lookup.outputs or not all(map(self.is_half, self.lookup.readers[output])):
            self.cast(self.halves[output], output, TensorProto.FLOAT)
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


def make_cheap(model: onnx.ModelProto, half: tuple[str, ...] = ()) -> None:
    """Rewrites a quantized graph in place; `half`: kinds of float operations that may compute in fp16."""
    rewriter = Cheap(model)
    rewriter.run({"LayerNormalization": rewriter.norm, "Transpose": rewriter.heads, "Gelu": rewriter.gelu})
    if half:
        halves = Halves(model, half)
        halves.run(dict.fromkeys((*half, "Transpose"), halves.compute))
        read = {name for node in model.graph.node for name in node.input}
        kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
