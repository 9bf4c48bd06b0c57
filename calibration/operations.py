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
        "float, fp16 behind the first GELU where the processor can",
        "float",
        "pixels stay exact, and no other layer loses as much per instruction",
    ),
    Rule(
        "mergings of TinyViT",
        "float, fp16 where the processor can",
        "float",
        "they read the residual stream, and integers lose most there of what an encoder loses",
    ),
    Rule(
        "convolutional stage of TinyViT",
        "integer, the last result of a bottleneck float",
        "int8 weights, inputs rounded with a range for each row of the map when they run; depthwise float",
        "it costs more in fp16; LiteRT gives float results of int8 weights, so they need not be rounded",
    ),
    Rule("other convolutions, linear layers", "integer", "integer", "where the instructions are"),
    Rule(
        "other depthwise convolutions",
        "float",
        "integer, float on the residual stream",
        "rounding both their sides costs as many instructions as integers save, and rounds the residual stream",
    ),
    Rule(
        "GELU between integer layers",
        "integer, as a sigmoid and a product",
        "a table",
        "it costs half of what a float one and the conversions take",
    ),
    Rule(
        "other GELU, additions before it",
        "float, by the form with tanh, fp16 where the processor can",
        "a table, float behind float layers",
        "what they read is float",
    ),
    Rule(
        "linear layers of the decoder's tokens",
        "float, weights stored as int8",
        "int8 weights, inputs rounded with one range when they run",
        "few vectors: with one range for all photographs they lose most of what the decoder loses; LiteRT would hold "
        "weights stored as int8 in fp32 twice for every signature, ONNX Runtime holds them once",
    ),
    Rule(
        "upscaling of the decoder",
        "integer",
        "int8 weights, inputs rounded with one range when they run",
        "in LiteRT its results are fp16 where the processor can, and so is what lies between its layers",
    ),
    Rule(
        "projections of the photograph's cells for many points",
        "none: their side of the products is projected",
        "int8 weights, inputs rounded with one range when they run",
        "rounding them changes the masks of INT8 decoders by no more than anything else does",
    ),
    Rule(
        "attention of the encoder: q k and weights v",
        "integer operands, float result",
        "float",
        "LiteRT runs integer matrix products of activations as scalar code",
    ),
    Rule(
        "products of activations in the decoder",
        "float, fp16 where the processor can",
        "float",
        "fp16 takes 11 million instructions less in ONNX Runtime, conversions included",
    ),
    Rule("last layer of the predicted IoU", "float", "float", "256 weights per mask decide which mask is chosen"),
    Rule("softmax", "float", "float", "the integer one is scalar code in both engines"),
    Rule("layer norm, residual stream", "float", "float", "their sums need more than 8 bits"),
    Rule(
        "attention bias, weights per head, position encoding",
        "stored as int8",
        "stored as int8",
        "only their size matters; both engines dequantize them once, at load",
    ),
)


def described_rules() -> dict[str, str]:
    """Kind of operation -> what it is in both engines, and why; for the INT8 report."""
    return {rule.title: f"ONNX Runtime: {rule.onnx}; LiteRT: {rule.tflite}. {rule.reason}" for rule in RULES}


FEW_ROWS = 64
"""Linear layers of fewer rows read more weights than they compute: those of the decoder's tokens."""


@dataclass(frozen=True)
class Engine:
    """What of the rules differs between engines, for `tinysam.calibration.onnx_graph.Graph.integer_nodes`."""

    between: bool
    """Whether all that lies between integer layers is integer: GELU that something float reads, too, additions before
    it, and depthwise convolutions besides those of the residual stream. Otherwise only depthwise convolutions behind a
    GELU."""
    attention: bool
    """Whether products of activations are integer in the encoder."""
    float_blocks: tuple[str, ...] = ()
    """Blocks that stay float, see `tinysam.calibration.blocks`: names with `*` for any."""
    dynamic_layers: tuple[str, ...] = ()
    """Float layers whose weights are int8 nevertheless, and whose inputs are rounded when they run: paths of modules
    with `*` for any."""


ONNX = Engine(between=False, attention=True, float_blocks=("mergings.*",))
TFLITE = Engine(
    between=True,
    attention=False,
    float_blocks=("convolutions.*", "mergings.*", "upscaling"),
    dynamic_layers=("convolutions.*.expand", "convolutions.*.project", "decoder.upscaling.*"),
)
FLOAT_BLOCKS = tuple(name for name in ONNX.float_blocks if name in TFLITE.float_blocks)
"""Blocks that are float in the files of both engines: nothing is to be chosen there."""
EITHER = Engine(between=True, attention=False)
"""Everything whose range some engine needs; products of attention need none of their own."""
