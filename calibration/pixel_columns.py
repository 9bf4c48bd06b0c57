"""The first convolution of an encoder for ARM as a matrix product, whose columns are put together from bytes.

ONNX Runtime computes a convolution as a matrix product of columns, too: every pixel stands in as many of them as read
it. It writes them float by float, which costs as much as the product. Here rows of bytes are copied, and converted
when they are in place: nano's first convolution takes 19 million instructions with the GELU behind it where it took 31
(Cortex-A76, which computes the product in fp16; 22 in fp32).

The bias is the weight of one more row, of ones.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinysam.calibration.arrays import Floats
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.onnx_rewriter import Rewriter, drop_unread

KERNEL, STRIDE = 3, 2
"""Of the convolutions that can be rewritten; padded by one pixel on each side."""


class PixelColumns(Rewriter):
    """The rules for a graph whose convolution reads what a Cast makes of bytes.

    Args:
        model: encoder that takes pixels, see `tinysam.calibration.pixel_input`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self.lookup = Graph(model)
        self.casts = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Cast"}
        self.bytes = {v.name for v in model.graph.input if v.type.tensor_type.elem_type == TensorProto.UINT8}
        self.made = set[str]()

    def convolution(self, node: onnx.NodeProto) -> bool:
        """A convolution of the bytes."""
        image = self.casts.get(node.input[0], "")
        if image not in self.bytes or not self.fits(node):
            return False
        (output,) = node.output
        shape = self.shape(output)
        assert shape is not None, output
        readers = self.lookup.readers[output]
        half = len(readers) == 1 and readers[0].op_type == "Cast" and readers[0].attribute[0].i == TensorProto.FLOAT16
        weight, bias = (numpy_helper.to_array(self.constants[name]) for name in node.input[1:])
        rows = product_rows(weight, bias).astype(np.float16 if half else np.float32)
        columns = self.as_float(self.columns(image), half)
        product = [self.constant(f"{node.input[1]}.rows", rows), columns]
        self.nodes.append(helper.make_node("MatMul", product, [f"{output}.flat"], node.name))
        result = readers[0].output[0] if half else output
        self.made.add(result)
        self.reshape(f"{output}.flat", shape, result)
        return True

    def cast(self, node: onnx.NodeProto) -> bool:
        """The conversions before the product and behind it are no longer needed."""
        before = all(reader.op_type == "Conv" and self.fits(reader) for reader in self.lookup.readers[node.output[0]])
        return node.output[0] in self.made or (node.input[0] in self.bytes and before)

    def fits(self, node: onnx.NodeProto) -> bool:
        """Whether a convolution has the kernel, stride and padding that are rewritten, of an even number of pixels."""
        shape = self.shape(node.input[0])
        found = {a.name: list(a.ints) for a in node.attribute}
        alike = [found.get(name) for name in ("strides", "pads")] == [[STRIDE] * 2, [1] * 4]
        plain = found.get("dilations", [1, 1]) == [1, 1] and len(node.input) == 3
        weight = self.constants.get(node.input[1])
        if shape is None or weight is None or not (alike and plain):
            return False
        return list(weight.dims[1:]) == [shape[1], KERNEL, KERNEL] and not any(size % STRIDE for size in shape[2:])

    def columns(self, image: str) -> str:
        """Bytes (1, C, H, W) -> (9 C + 1, H / 2 W / 2): what each value of the result reads, and one."""
        shape = self.shape(image)
        assert shape is not None, image
        _, channels, height, width = shape
        rows, columns = height // STRIDE, width // STRIDE
        pairs = self.reshape(image, [1, channels * height * columns, STRIDE], f"{image}.pairs")
        split = self.reshape(
            self.transpose(pairs, [0, 2, 1], f"{image}.split"), [STRIDE, channels, height, columns], f"{image}.phases"
        )
        # The pixels left of, at and right of the middle: odd columns, one to the right, even columns, odd columns.
        even, odd = (self.cut(split, f"{image}.{name}", {0: (i, i + 1)}) for i, name in enumerate(("even", "odd")))
        left = self.pad(odd, f"{image}.left", [0, 0, 0, 1, 0, 0, 0, -1])
        across = self.join([left, even, odd], f"{image}.across")
        above = self.pad(across, f"{image}.above", [0, 0, STRIDE, 0, 0, 0, 0, 0])
        # Rows in pairs, as one: of the pair before the second, of the own pair the first and the second.
        lines = self.reshape(above, [KERNEL * channels, rows + 1, STRIDE * columns], f"{image}.lines")
        halves = ((0, 1), (1, 0), (1, 1))
        taps = [
            self.cut(lines, f"{image}.tap{i}", {1: (a, a + rows), 2: (b * columns, (b + 1) * columns)})
            for i, (a, b) in enumerate(halves)
        ]
        ones = self.ones([1, rows, columns], f"{image}.ones")
        inputs = KERNEL * KERNEL * channels + 1
        return self.reshape(self.join([*taps, ones], f"{image}.taps"), [inputs, rows * columns], f"{image}.columns")

    def ones(self, shape: list[int], output: str) -> str:
        """Appends a constant of ones, which ONNX Runtime makes when it loads the graph."""
        lengths = self.constant(f"{output}.shape", np.array(shape, np.int64))
        one = numpy_helper.from_array(np.ones(1, np.uint8))
        self.nodes.append(helper.make_node("ConstantOfShape", [lengths], [output], output, value=one))
        return output

    def as_float(self, columns: str, half: bool) -> str:
        """Appends the conversion of bytes, which costs least as a dequantization."""
        scale = self.constant(f"{columns}.scale", np.ones((), np.float32))
        whole = [columns, scale, self.constant(f"{columns}.zero", np.zeros((), np.uint8))]
        self.nodes.append(helper.make_node("DequantizeLinear", whole, [f"{columns}.float"], "pixels"))
        if not half:
            return f"{columns}.float"
        rounded = f"{columns}.half"
        self.nodes.append(helper.make_node("Cast", [f"{columns}.float"], [rounded], rounded, to=TensorProto.FLOAT16))
        return rounded

    def cut(self, source: str, output: str, spans: dict[int, tuple[int, int]]) -> str:
        """Appends a Slice; `spans`: axis -> (begin, end)."""
        begin, end = zip(*spans.values(), strict=True)
        parts = {"begin": begin, "end": end, "axes": tuple(spans)}
        constants = [self.constant(f"{output}.{name}", np.array(values, np.int64)) for name, values in parts.items()]
        self.nodes.append(helper.make_node("Slice", [source, *constants], [output], output))
        return output

    def pad(self, source: str, output: str, amounts: list[int]) -> str:
        """Appends a Pad with zeros, negative amounts cut off."""
        pads = self.constant(f"{output}.amounts", np.array(amounts, np.int64))
        self.nodes.append(helper.make_node("Pad", [source, pads], [output], output))
        return output

    def join(self, parts: list[str], output: str) -> str:
        """Appends a Concat of the first axis."""
        self.nodes.append(helper.make_node("Concat", parts, [output], output, axis=0))
        return output


def product_rows(weight: Floats, bias: Floats) -> Floats:
    """(outputs, C, 3, 3) and (outputs,) -> (outputs, 9 C + 1) in the order of the columns: row, column, channel."""
    return np.concatenate([weight.transpose(0, 2, 3, 1).reshape(len(weight), -1), bias[:, None]], axis=1)


def multiply_pixels(model: onnx.ModelProto) -> None:
    """Rewrites the convolution of the bytes that a graph takes, in place; graphs without such a one stay."""
    rewriter = PixelColumns(model)
    rewriter.run({"Conv": rewriter.convolution, "Cast": rewriter.cast})
    drop_unread(model.graph)
    onnx.checker.check_model(model)
