"""Float ONNX graph to static INT8 ONNX graph."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tinysam.calibration.observers import Observation, observe
from tinysam.calibration.onnx_gelu import best_slope
from tinysam.calibration.onnx_qdq import Plan, QdqWriter
from tinysam.calibration.qparams import activation_qparams
from tinysam.calibration.ranges import find_ranges

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class OnnxScheme:
    """How a graph is quantized."""

    target: str
    """`arm`: signed activations; `x86`: unsigned ones, which its 8-bit kernels want."""
    method: str = "mse"
    """How activation ranges are found, see `tinysam.calibration.ranges`."""
    keep_float: frozenset[str] = frozenset()
    """Names of nodes that stay float."""

    @property
    def signed(self) -> bool:
        """Whether activations are int8 (otherwise uint8); weights are always int8 per output channel."""
        return self.target == "arm"


class Graph:
    """Who makes and who reads each tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name for tensor in model.graph.initializer}
        self.outputs = {output.name for output in model.graph.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for tensor in node.input:
                self.readers.setdefault(tensor, []).append(node)

    def feeds_only(self, tensor: str, kind: str) -> bool:
        """Whether all readers of a tensor are of one operation."""
        readers = self.readers.get(tensor, [])
        return bool(readers) and tensor not in self.outputs and all(node.op_type == kind for node in readers)

    def has_constant_weight(self, node: onnx.NodeProto) -> bool:
        """Whether the second operand is stored in the file."""
        return len(node.input) > 1 and node.input[1] in self.constants


def choose_nodes(graph: Graph, keep_float: frozenset[str]) -> list[onnx.NodeProto]:
    """Nodes that become integer: Conv, Gemm, the GELU behind them, and residual additions that go into a GELU."""
    chosen: list[onnx.NodeProto] = []
    leaving: set[str] = set()  # outputs of chosen nodes, which an integer GELU can read
    for node in graph.nodes:
        if node.name in keep_float or node.output[0] in graph.outputs:
            continue
        linear = node.op_type in ("Conv", "Gemm") and graph.has_constant_weight(node)
        gelu = node.op_type == "Gelu" and node.input[0] in leaving
        residual = node.op_type == "Add" and graph.feeds_only(node.output[0], "Gelu") and set(node.input) <= leaving
        if linear or gelu or residual:
            chosen.append(node)
            leaving.add(node.output[0])
    return chosen


def activation_tensors(nodes: list[onnx.NodeProto], constants: set[str]) -> list[str]:
    """Tensors that need a range: every activation that enters or leaves a chosen node."""
    found: dict[str, None] = {}
    for node in nodes:
        for tensor in (*node.input, *node.output):
            if tensor and tensor not in constants:
                found[tensor] = None
    return list(found)


def gelu_slopes(nodes: list[onnx.NodeProto], seen: dict[str, Observation]) -> dict[str, float]:
    """Slope of the sigmoid form of every integer GELU."""
    return {node.name: best_slope(seen[node.input[0]].values) for node in nodes if node.op_type == "Gelu"}


def quantize_onnx(
    source: Path, destination: Path, feeds: Iterable[dict[str, Floats]], scheme: OnnxScheme
) -> dict[str, Any]:
    """Writes the INT8 version of a float ONNX file; what the manifest says of it.

    Args:
        source: float file of `tinysam.export`.
        destination: file to write.
        feeds: inputs by name, one dictionary per run.
        scheme: target and method.

    Raises:
        CalibrationError: no feeds, values that are not finite, or a tensor without range.
    """
    model = onnx.load(source)
    graph = Graph(model)
    nodes = choose_nodes(graph, scheme.keep_float)
    tensors = activation_tensors(nodes, graph.constants)
    seen = observe(model, tensors, feeds)
    ranges = find_ranges(seen, scheme.method)
    plan = Plan(
        nodes={node.name for node in nodes},
        activations={name: activation_qparams(span, scheme.signed) for name, span in ranges.items()},
        gelu_slopes=gelu_slopes(nodes, seen),
    )
    onnx.save(QdqWriter(model, plan).write(), destination)
    integer = {node.op_type for node in nodes}
    return {
        "scheme": "static QDQ, int8 weights per channel, "
        + ("int8 activations" if scheme.signed else "uint8 activations"),
        "target": scheme.target,
        "ranges": scheme.method,
        "integer_operations": sorted(integer),
        "float_nodes": sorted(scheme.keep_float),
    }
