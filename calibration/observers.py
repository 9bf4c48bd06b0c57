"""What values the tensors of an ONNX graph take on real images.

Extremes are exact; the distribution is a regular sample of each tensor, taken inside the graph so that activations of
hundreds of megabytes never leave the engine.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from tinysam.calibration.arrays import Floats
from tinysam.calibration.errors import CalibrationError

SAMPLES_PER_IMAGE = 4096


@dataclass
class Observation:
    """What was seen of one tensor."""

    low: float = float("inf")
    high: float = float("-inf")
    samples: list[Floats] = field(default_factory=list)
    elements: int = 0
    """Number of values in all runs together."""

    def add(self, low: float, high: float, samples: Floats, elements: int) -> None:
        """Takes in another image."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.samples.append(samples)
        self.elements += elements

    @property
    def size(self) -> float:
        """Mean number of values in one run."""
        return self.elements / max(1, len(self.samples))

    @property
    def values(self) -> Floats:
        """All samples."""
        return np.concatenate(self.samples)


def observed_model(model: onnx.ModelProto, tensors: list[str]) -> onnx.ModelProto:
    """The graph with minimum, maximum, a regular sample and the size of each tensor as its outputs."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    graph = observed.graph
    del graph.output[:]
    flat = numpy_helper.from_array(np.array([-1], np.int64), "observe.flat")
    zero = numpy_helper.from_array(np.array([0], np.int64), "observe.zero")
    end = numpy_helper.from_array(np.array([np.iinfo(np.int64).max], np.int64), "observe.end")
    many = numpy_helper.from_array(np.array([SAMPLES_PER_IMAGE], np.int64), "observe.many")
    one = numpy_helper.from_array(np.array([1], np.int64), "observe.one")
    graph.initializer.extend([flat, zero, end, many, one])
    for i, name in enumerate(tensors):
        own = f"observe.{i}"
        graph.node.extend(
            [
                helper.make_node("ReduceMin", [name], [f"{own}.low"], keepdims=0),
                helper.make_node("ReduceMax", [name], [f"{own}.high"], keepdims=0),
                helper.make_node("Reshape", [name, flat.name], [f"{own}.flat"]),
                # a step that leaves about SAMPLES_PER_IMAGE values, odd so that it does not stay in one column
                helper.make_node("Size", [name], [f"{own}.size"]),
                helper.make_node("Div", [f"{own}.size", many.name], [f"{own}.ratio"]),
                helper.make_node("BitwiseOr", [f"{own}.ratio", one.name], [f"{own}.step"]),
                helper.make_node(
                    "Slice", [f"{own}.flat", zero.name, end.name, zero.name, f"{own}.step"], [f"{own}.some"]
                ),
            ]
        )
        for what in ("low", "high", "some"):
            graph.output.append(helper.make_tensor_value_info(f"{own}.{what}", TensorProto.FLOAT, None))
        graph.output.append(helper.make_tensor_value_info(f"{own}.size", TensorProto.INT64, None))
    return observed


def observe(model: onnx.ModelProto, tensors: list[str], feeds: Iterable[dict[str, Floats]]) -> dict[str, Observation]:
    """Runs the graph on every feed.

    Raises:
        CalibrationError: a tensor has values that are not finite.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(observed_model(model, tensors).SerializeToString(), options)
    seen = {name: Observation() for name in tensors}
    for feed in feeds:
        outputs = session.run(None, feed)
        for i, name in enumerate(tensors):
            low, high, some, elements = outputs[4 * i : 4 * i + 4]
            if not (np.isfinite(low) and np.isfinite(high)):
                raise CalibrationError(
                    f"activation {name} is not finite ({low} to {high}): check checkpoint and calibration images"
                )
            seen[name].add(float(low), float(high), some, int(elements))
    if any(not observation.samples for observation in seen.values()):
        raise CalibrationError("no calibration images: nothing was observed")
    return seen
