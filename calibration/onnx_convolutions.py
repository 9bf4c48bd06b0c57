"""Convolutions of one pixel and linear layers, each as the other, where ONNX Runtime on ARM computes it with less.

An integer convolution gives integers, and dequantizing them takes 1.4 instructions a value on a Cortex-A76. As a
linear layer a convolution of one pixel gives the float result that its sums have anyway. Where integers are wanted it
is the other way round: linear layers of 64 inputs take a fifth more than convolutions of one pixel, which read their
input without packing it and add their bias for nothing. Those of 128 inputs take an eighth more; but on a Cortex-A72
they take an eighth less.

Only what has fixed shapes is rewritten.
"""

import onnx
from onnx import helper, numpy_helper

from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.onnx_rewriter import Rewriter

TO_ROWS, TO_MAP = [0, 2, 3, 1], [0, 3, 1, 2]
"""Orders of axes: channels last, channels first."""
MOST_INPUTS = 64
"""Linear layers of more inputs stay, for the sake of processors without dot products of bytes."""


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


class PixelConvolutions(Rewriter):
    """The rules for float graphs that make convolutions of linear layers.

    Args:
        model: float graph.
        names: of the linear layers.

    Attributes:
        sources: new tensor -> the tensor of the old graph with the same values.
    """

    def __init__(self, model: onnx.ModelProto, names: frozenset[str]) -> None:
        super().__init__(model)
        self.names, self.sources = names, dict[str, str]()
        self.lookup = Graph(model)

    def linear(self, node: onnx.NodeProto) -> bool:
        """A linear layer as a convolution of its name over a map of one column, with a GELU behind it there too."""
        source, weight, (output,) = node.input[0], self.constants.get(node.input[1]), node.output
        shape = self.shape(source)
        if node.name not in self.names or shape is None or weight is None or len(shape) != 2:
            return False
        rows, inputs = shape
        if inputs > MOST_INPUTS:
            return False
        columns, result = f"{source}.column", f"{output}.column"
        if columns not in self.sources:  # queries, keys and values read the same
            self.transpose(self.reshape(source, [1, rows, 1, inputs], f"{source}.pixels"), TO_MAP, columns)
            self.sources[columns] = source
        outputs = weight.dims[0]
        kernel = numpy_helper.to_array(weight).reshape(outputs, inputs, 1, 1)
        weight.CopyFrom(numpy_helper.from_array(kernel, weight.name))
        inner = [columns, *node.input[1:]]
        self.nodes.append(helper.make_node("Conv", inner, [result], node.name, kernel_shape=[1, 1]))
        self.sources[result] = output
        if not self.lookup.feeds_only(output, "Gelu"):
            self.to_rows(result, output, [rows, outputs])
        return True

    def gelu(self, node: onnx.NodeProto) -> bool:
        """A GELU of such a result, which is put back into rows behind it."""
        source, (output,) = f"{node.input[0]}.column", node.output
        if source not in self.sources:
            return False
        shape = self.shape(output)
        assert shape is not None, output
        result = f"{output}.column"
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        copy.input[:], copy.output[:] = [source], [result]
        self.nodes.append(copy)
        self.sources[result] = output
        self.to_rows(result, output, shape)
        return True

    def to_rows(self, source: str, output: str, shape: list[int]) -> None:
        """Appends what makes (rows, channels) of a map of one column."""
        self.reshape(self.transpose(source, TO_ROWS, f"{output}.pixels"), shape, output)


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


def pixel_convolutions(model: onnx.ModelProto, names: frozenset[str]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A float graph with the linear layers `names` as convolutions of one pixel, where that is cheaper.

    Returns:
        The graph, and the new tensors: their name -> the tensor of the old graph with the same values.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    rewriter = PixelConvolutions(changed, names)
    rewriter.run({"Gemm": rewriter.linear, "Gelu": rewriter.gelu})
    return changed, rewriter.sources
