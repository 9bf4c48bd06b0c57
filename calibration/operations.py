"""Which operations become integer in which engine, and why: one table for calibration, quantizers and docs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One kind of operation."""

    title: str
    onnx: str
    """`integer`, `float`, or how integers take part in ONNX Runtime."""
    tflite: str
    """Likewise in LiteRT."""
    reason: str


RULES = (
    Rule(
        "convolutions that read the photograph",
        "float",
        "float",
        "pixels stay exact, and no other layer loses as much per instruction",
    ),
    Rule("other convolutions, linear layers", "integer", "integer", "where the instructions are"),
    Rule(
        "depthwise convolutions on the residual stream",
        "float",
        "float",
        "rounding both their sides costs as many instructions as integers save, and rounds the residual stream",
    ),
    Rule(
        "GELU between convolutions, additions before it",
        "x * sigmoid(a x)",
        "a table",
        "ONNX Runtime has no integer GELU, but an integer sigmoid (a table) and product",
    ),
    Rule(
        "GELU between linear layers",
        "float",
        "a table",
        "off by up to 0.02 the sigmoid form was the largest error of the encoder; the float one reads what the linear "
        "layer gives anyway",
    ),
    Rule(
        "attention of the encoder: q k and weights v",
        "integer operands, float result",
        "float",
        "LiteRT runs integer matrix products of activations as scalar code",
    ),
    Rule("softmax", "float", "float", "the integer one is scalar code in both engines"),
    Rule("layer norm, residual stream", "float", "float", "their sums need more than 8 bits"),
    Rule(
        "attention bias, weights per head, position encoding",
        "stored as int8",
        "stored as int8",
        "only their size matters; LiteRT dequantizes them once, at load",
    ),
    Rule("head of the predicted IoU", "float", "float", "a few weights decide which mask is chosen"),
)


@dataclass(frozen=True)
class Engine:
    """What of the rules differs between engines, for `tinysam.calibration.onnx_graph.Graph.integer_nodes`."""

    gelu_behind: tuple[str, ...]
    """ONNX operations behind which a GELU is integer."""
    attention: bool
    """Whether products of activations are integer in the encoder."""


ONNX = Engine(gelu_behind=("Conv", "Add"), attention=True)
TFLITE = Engine(gelu_behind=("Conv", "Add", "Gemm"), attention=False)
EITHER = Engine(gelu_behind=("Conv", "Add", "Gemm"), attention=False)
"""Everything whose range some engine needs; products of attention need none of their own."""
