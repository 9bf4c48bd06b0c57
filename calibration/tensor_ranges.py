"""Ranges of one graph's activations: found once on the float ONNX file, used for both engines."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx

from tinysam.calibration.arrays import Floats
from tinysam.calibration.observers import Observation, observe
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.qparams import Range
from tinysam.calibration.ranges import find_ranges


@dataclass(frozen=True)
class TensorRanges:
    """What is known of the activations of one ONNX graph."""

    method: str
    """How ranges were found, one of `tinysam.calibration.ranges.METHODS`."""
    observations: dict[str, Observation]
    ranges: dict[str, Range]
    weight_limits: dict[str, Floats] = field(default_factory=dict)
    """Weight -> (N,) largest value of each output channel that is represented; others keep their maximum."""


def calibrate(model: onnx.ModelProto, feeds: Iterable[dict[str, Floats]], method: str) -> TensorRanges:
    """Observes a float graph on real inputs and finds the range of every activation that may become integer.

    Raises:
        CalibrationError: no feeds, or values that are not finite.
    """
    graph = Graph(model)
    tensors = graph.activations(graph.integer_nodes(frozenset()))
    into_gelu = frozenset(name for name in tensors if graph.feeds_only(name, "Gelu"))
    observations = observe(model, tensors, feeds)
    return TensorRanges(method, observations, find_ranges(observations, method, into_gelu))
