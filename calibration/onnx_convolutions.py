"""Convolutions of one pixel as linear layers.

An integer convolution gives integers, and dequantizing them takes 1.4 instructions a value on a Cortex-A76. As a
linear layer a convolution of one pixel gives the float result that its sums have anyway.

Only what has fixed shapes is rewritten.
"""

import onnx
from onnx import helper, numpy_helper

from tinysam.calibration.onnx_rewriter import Rewriter

TO_ROWS, TO_MAP = [0, 2, 3, 1], [0, 3, 1, 2]
"""Orders of axes: channels last, channels first."""


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
