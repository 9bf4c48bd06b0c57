"""Float operations of a quantized graph that may compute in fp16, for which ONNX Runtime has fast kernels of a few.

Counted on a Cortex-A76 (`make arm-cost`), instructions per value: GELU takes 5.3, a conversion 1.5 each way, a
depthwise convolution of stride 2 17 in place of 71, of stride 1 14 in place of 12. The second convolution of nano takes
14 million in place of 32, one of one pixel from 32 to 128 channels 10 in place of 20. All else is no cheaper or scalar:
additions and products (43), quantizing (34), softmax, layer norms, linear layers. The products of activations of nano's
decoder take 11 million fewer, conversions included; its GELU stays in fp32, as it would take 9 million more on
processors without fp16. On those (Cortex-A72, x86) ONNX Runtime computes the same operations in fp32.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinysam.calibration.onnx_graph import MOVES, Graph
from tinysam.calibration.onnx_rewriter import Rewriter

FEW = 8
"""Products of fewer rows save less in fp16 than it takes to convert the other operand."""


class Halves(Rewriter):
    """Rewrites GELU, and convolutions before and behind it; or products of activations, and what moves their operands.

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
        if node.op_type in MOVES:
            readers = self.lookup.readers.get(node.output[0], [])
            products = bool(readers) and all(reader.op_type == "MatMul" and self.is_half(reader) for reader in readers)
            return products and (node.op_type == "Transpose" or node.input[0] in self.halves)
        if node.op_type not in self.kinds:
            return False
        if node.op_type == "MatMul":
            rows = (self.shapes.get(node.input[0]) or [0, 0])[-2]
            return not 0 < rows < FEW and not any(map(self.is_stored, node.input))
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
        values = node.input[:1] if node.op_type in MOVES else node.input
        changed.input[: len(values)] = [self.half(tensor) for tensor in values]
        changed.output[:] = [f"{output}.half"]
        self.nodes.append(changed)
        self.halves[output] = changed.output[0]
        if output in self.lookup.outputs or not all(map(self.is_half, self.lookup.readers[output])):
            self.cast(self.halves[output], output, TensorProto.FLOAT)
        return True
