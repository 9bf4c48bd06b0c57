"""The same graph in operations that ONNX Runtime runs with fewer instructions on ARM.

Counted on a Cortex-A76 (`make arm-cost`), instructions per value:

* GELU by `erf` takes 22, by `tanh` 12. They differ by 0.0005 at most (Hendrycks and Gimpel 2016, arXiv:1606.08415,
  section 2), far below a step of 8 bits.
* LayerNormalization of rows is scalar code and takes 14; InstanceNormalization, which is the same with the rows as
  channels, takes 4 to 7. Scale and bias take 2 each, 4 in rows of 64, so that several rows are multiplied at once.
* Exchanging the two middle axes of an 8-bit tensor takes 5, two exchanges of the last two axes 1 each.

Only what has fixed shapes is rewritten, and what has but its first axis free: cells of any number of prompts.
"""

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tinysam.calibration.onnx_graph import MOVES, Graph
from tinysam.calibration.onnx_half import Halves
from tinysam.calibration.onnx_rewriter import Rewriter, drop_unread
from tinysam.calibration.spread import TOGETHER

HEADS = [0, 2, 1, 3]
"""The order of axes that brings heads before positions, or back."""
MOST_CHANNELS = 64
"""Longer rows are copied as a whole, which is cheaper."""
TURN = [0, 2, 1]
"""The order of axes that exchanges the last two of three."""


def attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """A number among the attributes of a node."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


class Cheap(Rewriter):
    """The rules for graphs that are quantized already."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self.lookup = Graph(model)

    def is_all(self, tensor: str, value: float) -> bool:
        """Whether this is a constant that holds one value throughout."""
        return tensor in self.constants and bool(np.all(numpy_helper.to_array(self.constants[tensor]) == value))

    def norm(self, node: onnx.NodeProto) -> bool:
        """A layer norm over the last axis."""
        source, scale, *bias = node.input
        shape, (output,) = self.shapes.get(source) or [0], node.output
        (epsilon, axis) = (attribute(node, "epsilon", 1e-5), attribute(node, "axis", -1))
        if not all(shape[1:]) or not (shape[0] or len(shape) in (2, 3)) or axis not in (-1, len(shape) - 1):
            return False
        free, dim, rows = not shape[0], shape[-1], self.rows_at_once(source, shape)
        kept = free and len(shape) == 3  # as (prompts, rows, dim) it is what InstanceNormalization takes
        inputs = [
            source if kept else self.reshape(source, [-1 if free else 1, rows, dim], f"{output}.rows"),
            self.constant(f"ones.{rows}", np.ones(rows, np.float32)),
            self.constant(f"zeros.{rows}", np.zeros(rows, np.float32)),
        ]
        affine = [("Mul", scale)] * (not self.is_all(scale, 1))
        affine += [("Add", b) for b in bias if not self.is_all(b, 0)]
        last = f"{output}.normalized"
        self.nodes.append(helper.make_node("InstanceNormalization", inputs, [last], node.name, epsilon=epsilon))
        together = math.gcd(rows, max(1, TOGETHER // dim)) if affine else 1
        if together > 1:
            last, kept = self.reshape(last, [-1, together * dim], f"{output}.wide"), False
        for kind, constant in affine:
            values = np.tile(numpy_helper.to_array(self.constants[constant]), together)
            wide = self.constant(f"{constant}.{together}", values)
            self.nodes.append(helper.make_node(kind, [last, wide], [f"{output}.{kind}"], f"{output}.{kind}"))
            last = f"{output}.{kind}"
        if kept:
            self.nodes[-1].output[0] = output
        else:
            self.reshape(last, [-1, *shape[1:]] if free else shape, output)
        return True

    def rows_at_once(self, source: str, shape: list[int]) -> int:
        """How many rows there are; of a free number, how many there are at least and a multiple of."""
        if shape[0] or len(shape) == 3:
            return math.prod(shape[not shape[0] : -1])
        maker = self.lookup.makers.get(source)
        before = self.shapes.get(maker.input[0]) if maker is not None and maker.op_type == "Reshape" else None
        return before[-1] // shape[-1] if before and before[-1] and not before[-1] % shape[-1] else 1

    def heads(self, node: onnx.NodeProto) -> bool:
        """An exchange of the middle axes of four, (n, a, b, c) -> (n, b, a, c), whose rows are short."""
        shape = self.shapes.get(node.input[0]) or [0]
        (order,) = (list(attribute.ints) for attribute in node.attribute if attribute.name == "perm")
        if order != HEADS or not all(shape[1:]) or shape[3] > MOST_CHANNELS:
            return False
        (_, a, b, c), (output,) = shape, node.output
        n = shape[0] or -1  # any number
        wide, tall = ([n, a, b * c], [-1, c, a]) if a > b else ([-1, b, c], [n, a * c, b])
        turned = self.transpose(self.reshape(node.input[0], wide, f"{output}.wide"), TURN, f"{output}.turned")
        back = self.transpose(self.reshape(turned, tall, f"{output}.tall"), TURN, f"{output}.back")
        self.reshape(back, [n, b, a, c], output)
        return True

    def gelu(self, node: onnx.NodeProto) -> bool:
        """The form with tanh, of the same node."""
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("approximate", "tanh"))
        return False


def make_cheap(model: onnx.ModelProto, half: tuple[str, ...] = ()) -> None:
    """Rewrites a quantized graph in place; `half`: kinds of float operations that may compute in fp16."""
    rewriter = Cheap(model)
    rewriter.run({"LayerNormalization": rewriter.norm, "Transpose": rewriter.heads, "Gelu": rewriter.gelu})
    if half:
        halves = Halves(model, half)
        halves.run(dict.fromkeys((*half, *MOVES), halves.compute))
        drop_unread(model.graph)
