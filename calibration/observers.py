"""What values the tensors of an ONNX graph take on real images.

Extremes are exact; the distribution is a regular sample of each tensor, taken inside the graph so that activations of
hundreds of megabytes never leave the engine.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from tinysam.calibration.arrays import Floats
from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.onnx_rewriter import put_nodes
from tinysam.runtime.engines import usable_cores
from tinysam.runtime.engines.onnx import open_session

SAMPLES_PER_IMAGE = 4096

Extremes = tuple[Floats, Floats]
"""(C,) smallest and largest value of every channel of a tensor."""


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
    observers = {}
    for i, name in enumerate(tensors):
        own = f"observe.{i}"
        observers[name] = [
            helper.make_node("ReduceMin", [name], [f"{own}.low"], keepdims=0),
            helper.make_node("ReduceMax", [name], [f"{own}.high"], keepdims=0),
            helper.make_node("Reshape", [name, flat.name], [f"{own}.flat"]),
            # a step that leaves about SAMPLES_PER_IMAGE values, odd so that it does not stay in one column
            helper.make_node("Size", [name], [f"{own}.size"]),
            helper.make_node("Div", [f"{own}.size", many.name], [f"{own}.ratio"]),
            helper.make_node("BitwiseOr", [f"{own}.ratio", one.name], [f"{own}.step"]),
            helper.make_node("Slice", [f"{own}.flat", zero.name, end.name, zero.name, f"{own}.step"], [f"{own}.some"]),
        ]
        for what in ("low", "high", "some"):
            graph.output.append(helper.make_tensor_value_info(f"{own}.{what}", TensorProto.FLOAT, None))
        graph.output.append(helper.make_tensor_value_info(f"{own}.size", TensorProto.INT64, None))
    place_observers(graph, observers)
    return observed


def observe(model: onnx.ModelProto, tensors: list[str], feeds: Iterable[dict[str, Floats]]) -> dict[str, Observation]:
    """Runs the graph on every feed.

    Raises:
        CalibrationError: a tensor has values that are not finite.
    """
    session = quiet_session(observed_model(model, tensors))
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


def quiet_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session of a graph in memory, with every core, whose nodes run in the order of the graph."""
    return open_session(model.SerializeToString(), usable_cores(), by_priority=True)


def place_observers(graph: onnx.GraphProto, observers: Mapping[str, list[onnx.NodeProto]]) -> None:
    """Adds to a graph the nodes that observe its tensors, each right behind what makes the tensor.

    A tensor is then freed before the next ones are made: TinyViT-5M at 1024 takes 1 GB, not 6.5.
    """
    made = {name for node in graph.node for name in node.output}
    nodes = [node for name in observers if name not in made for node in observers[name]]
    for node in graph.node:
        nodes += [node, *(one for name in node.output for one in observers.get(name, []))]
    put_nodes(graph, nodes)


def extremes_model(model: onnx.ModelProto, tensors: Mapping[str, int | None]) -> onnx.ModelProto:
    """The graph with smallest and largest value of each tensor as its outputs, or of its channels along an axis."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    graph = observed.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*inferred.value_info, *inferred.input)}
    del graph.output[:]
    observers: dict[str, list[onnx.NodeProto]] = {}
    for i, (name, axis) in enumerate(tensors.items()):
        inputs = [name]
        if axis is not None:
            inputs.append(f"observe.{i}.axes")
            others = np.delete(np.arange(ranks[name]), axis)
            graph.initializer.append(numpy_helper.from_array(others, inputs[1]))
        for kind in ("ReduceMin", "ReduceMax"):
            node = helper.make_node(kind, inputs, [f"observe.{i}.{kind}"], keepdims=0)
            observers.setdefault(name, []).append(node)
            graph.output.append(helper.make_tensor_value_info(f"observe.{i}.{kind}", TensorProto.FLOAT, None))
    place_observers(graph, observers)
    return observed


def observe_channels(
    model: onnx.ModelProto, tensors: Mapping[str, int], feeds: Iterable[dict[str, Floats]]
) -> dict[str, Extremes]:
    """Runs the graph on every feed; smallest and largest value of every channel of each tensor along its axis.

    Raises:
        CalibrationError: a tensor has values that are not finite, or there are no feeds.
    """
    return run_extremes(extremes_model(model, tensors), list(tensors), feeds)


def observe_extremes(
    model: onnx.ModelProto, tensors: list[str], feeds: Iterable[dict[str, Floats]]
) -> dict[str, tuple[float, float]]:
    """Runs the graph on every feed; smallest and largest value of each tensor. Raises as `observe_channels`."""
    found = run_extremes(extremes_model(model, dict.fromkeys(tensors)), tensors, feeds)
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}


def run_extremes(
    observed: onnx.ModelProto, tensors: list[str], feeds: Iterable[dict[str, Floats]]
) -> dict[str, Extremes]:
    """Smallest and largest of what the graph of `extremes_model` gives for the feeds."""
    session = quiet_session(observed)
    lows: list[list[Floats]] = [[] for _ in tensors]
    highs: list[list[Floats]] = [[] for _ in tensors]
    for feed in feeds:
        outputs = session.run(None, feed)
        for i in range(len(tensors)):
            lows[i].append(outputs[2 * i])
            highs[i].append(outputs[2 * i + 1])
    if tensors and not lows[0]:
        raise CalibrationError("no calibration images: nothing was observed")
    found = {
        name: (np.min(low, axis=0), np.max(high, axis=0)) for name, low, high in zip(tensors, lows, highs, strict=True)
    }
    for name, extremes in found.items():
        if not np.isfinite(extremes).all():
            raise CalibrationError(f"activation {name} is not finite: check checkpoint and calibration images")
    return found
