"""Float ONNX graph and ranges to a static INT8 ONNX graph."""

from dataclasses import dataclass
from typing import Any

import onnx

from tinysam.calibration.gelu import gelu_source
from tinysam.calibration.onnx_cheap import make_cheap
from tinysam.calibration.onnx_convolutions import linear_convolutions, pixel_convolutions
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.onnx_qdq import Plan, QdqWriter
from tinysam.calibration.operations import ONNX
from tinysam.calibration.qparams import activation_qparams
from tinysam.calibration.tensor_ranges import TensorRanges


@dataclass(frozen=True)
class OnnxScheme:
    """How a graph is quantized."""

    target: str
    """`arm`: signed activations; `x86`: unsigned ones, which its 8-bit kernels need."""
    keep_float: frozenset[str] = frozenset()
    """Names of nodes that stay float."""
    stored: frozenset[str] = frozenset()
    """Names of those of them whose weights are stored as int8."""
    attention: bool = False
    """Whether the products of attention become integer too, which saves time in the encoder only."""
    half: tuple[str, ...] = ()
    """Kinds of float operations that may compute in fp16, in files for ARM."""

    @property
    def signed(self) -> bool:
        """Whether activations are int8 (otherwise uint8); weights are always int8 per output channel."""
        return self.target == "arm"


def quantize_onnx(
    model: onnx.ModelProto, found: TensorRanges, scheme: OnnxScheme
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The INT8 version of a float ONNX graph, and what the manifest says of it.

    Args:
        model: float graph of `tinysam.export`.
        found: ranges of its activations.
        scheme: target, and what stays float.

    Raises:
        CalibrationError: a tensor has no range.
    """
    linear, sources = linear_convolutions(model, scheme.keep_float | before_gelu(Graph(model), scheme.keep_float))
    ranges = found.ranges | {name: found.ranges[source] for name, source in sources.items()}
    if scheme.signed:  # x86 has no faster convolution of integers
        linear, sources = pixel_convolutions(linear, giving_integers(Graph(linear), scheme))
        ranges |= {name: ranges[source] for name, source in sources.items()}
    nodes = Graph(linear).integer_nodes(scheme.keep_float, ONNX, scheme.attention)
    ranges |= {node.input[0]: gelu_source(ranges[node.input[0]]) for node in nodes if node.op_type == "Gelu"}
    plan = Plan(
        signed=scheme.signed,
        nodes={node.name for node in nodes},
        activations={name: activation_qparams(span, scheme.signed) for name, span in ranges.items()},
        stored=scheme.stored,
    )
    kind = "int8" if scheme.signed else "uint8"
    facts = {
        "scheme": f"static QDQ, int8 weights per channel, {kind} activations",
        "target": scheme.target,
        "ranges": found.method,
        "integer_operations": sorted({node.op_type for node in nodes}),
        "float_nodes": sorted(scheme.keep_float),
    }
    quantized = QdqWriter(linear, plan).write()
    make_cheap(quantized, scheme.half if scheme.signed else ())
    return quantized, facts


def before_gelu(graph: Graph, keep_float: frozenset[str]) -> frozenset[str]:
    """Names of the convolutions that give integers to an integer GELU, which as linear layers would cost more."""
    gelus = [node for node in graph.integer_nodes(keep_float, ONNX) if node.op_type == "Gelu"]
    return frozenset(graph.makers[node.input[0]].name for node in gelus)


def giving_integers(graph: Graph, scheme: OnnxScheme) -> frozenset[str]:
    """Names of the linear layers whose results only integer nodes read: queries, keys, values, and before GELU."""
    nodes = graph.integer_nodes(scheme.keep_float, ONNX, scheme.attention)
    integer = {node.name for node in nodes}
    return frozenset(n.name for n in nodes if n.op_type == "Gemm" and graph.feeds_nodes(n.output[0], integer))
