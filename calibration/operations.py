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
    Rule(
        "convolutional stage and mergings of TinyViT",
        "integer operand, float result where a convolution has one pixel, else float",
        "float",
        "most of the encoder's error was there; LiteRT computes them in fp16 where the processor can",
    ),
    Rule("other convolutions, linear layers", "integer", "integer", "where the instructions are"),
    Rule(
        "other depthwise convolutions",
        "float",
        "integer, float on the residual stream",
        "rounding both their sides costs as many instructions as integers save, and rounds the residual stream",
    ),
    Rule(
        "GELU, additions before it",
        "float, GELU by its form with tanh",
        "a table, float behind float layers",
        "ONNX Runtime has no integer GELU; one put together of an integer sigmoid and a product is off by up to 0.02",
    ),
    Rule(
        "linear layers of the decoder's tokens",
        "float, weights stored as int8",
        "int8 weights, inputs rounded one by one when they run",
        "few vectors: with one range for all inputs they lose most of what the decoder loses; LiteRT would hold "
        "weights stored as int8 in fp32 twice for every signature, ONNX Runtime holds them once",
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
        "only their size matters; both engines dequantize them once, at load",
    ),
)


FEW_ROWS = 64
"""Linear layers of fewer rows read more weights than they compute: those of the decoder's tokens."""


@dataclass(frozen=True)
class Engine:
    """What of the rules differs between engines, for `tinysam.calibration.onnx_graph.Graph.integer_nodes`."""

    between: bool
    """Whether depthwise convolutions, GELU and additions between integer layers are integer."""
    attention: bool
    """Whether products of activations are integer in the encoder."""
    float_blocks: tuple[str, ...] = ()
    """Blocks that stay float, see `tinysam.calibration.blocks`: names with `*` for any."""


ONNX = Engine(between=False, attention=True)
TFLITE = Engine(between=True, attention=False, float_blocks=("convolutions.*", "mergings.*"))
EITHER = Engine(between=True, attention=False)
"""Everything whose range some engine needs; products of attention need none of their own."""
