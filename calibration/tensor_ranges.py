"""Ranges of one graph's activations: found once on the float ONNX file, used for both engines."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from tinysam.calibration.arrays import Floats
from tinysam.calibration.observers import Observation, observe
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.qparams import Range
from tinysam.calibration.ranges import find_ranges


@dataclass(frozen=True)
class TensorRanges:
    """What is known of the activations of one ONNX file."""

    method: str
    """How ranges were found, one of `tinysam.calibration.ranges.METHODS`."""
    observations: dict[str, Observation]
    ranges: dict[str, Range]
    weight_limits: dict[str, Floats] = field(default_factory=dict)
    """Weight -> (N,) largest value of each output channel that is represented; others keep their maximum."""


def calibrate(source: Path, feeds: Iterable[dict[str, Floats]], method: str) -> TensorRanges:
    """Observes a float ONNX file on real inputs and finds the range of every activation that may become integer.

    Raises:
        CalibrationError: no feeds, or values that are not finite.
    """
    model = onnx.load(source)
    graph = Graph(model)
    tensors = graph.activations(graph.integer_nodes(frozenset()))
    observations = observe(model, tensors, feeds)
    return TensorRanges(method, observations, find_ranges(observations, method))
