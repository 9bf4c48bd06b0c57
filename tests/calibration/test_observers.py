"""What is observed of a graph's tensors, against numpy; and that observing does not keep them all in memory."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.observers import observe, observe_channels, observe_extremes

SIDE, LENGTH = 1024, 60
"""A chain of 60 tensors of 4 MiB."""
MEMORY = """
import resource
import numpy as np
from tests.calibration.test_observers import SIDE, chain
from tinysam.calibration.observers import observe, observe_extremes

feed = {"x": np.ones((SIDE, SIDE), np.float32)}
model, tensors = chain()
observe_extremes(model, tensors[:1], [feed])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
observe_extremes(model, tensors, [feed])
observe(model, tensors, [feed])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def chain() -> tuple[onnx.ModelProto, list[str]]:
    """x -> exp(-x) -> exp(-exp(-x)) -> ..., which no optimization shortens; and its tensors."""
    nodes, tensors = [], ["x"]
    for i in range(LENGTH):
        nodes.append(helper.make_node("Neg", [tensors[-1]], [f"n{i}"]))
        nodes.append(helper.make_node("Exp", [f"n{i}"], [f"e{i}"]))
        tensors.append(f"e{i}")
    shape = [SIDE, SIDE]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", tensors[-1])]
    graph = helper.make_graph(nodes, "chain", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model, tensors[1:]


def test_extremes_and_samples_equal_numpys() -> None:
    model, tensors = chain()
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(SIDE, SIDE)).astype(np.float32)} for _ in range(2)]
    expected = np.stack([np.exp(-feed["x"]) for feed in feeds])
    low, high = observe_extremes(model, tensors[:1], feeds)["e0"]
    np.testing.assert_allclose([low, high], [expected.min(), expected.max()], rtol=1e-6)
    seen = observe(model, tensors[:1], feeds)["e0"]
    np.testing.assert_allclose([seen.low, seen.high], [low, high])
    assert seen.size == SIDE * SIDE
    np.testing.assert_allclose(np.median(seen.values), np.median(expected), atol=0.05)
    lows, highs = observe_channels(model, {"e0": 1}, feeds)["e0"]
    np.testing.assert_allclose(lows, expected.min((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(highs, expected.max((0, 1)), rtol=1e-6)


def test_no_feeds_are_an_error() -> None:
    model, tensors = chain()
    for look in (observe, observe_extremes):
        with pytest.raises(CalibrationError, match="no calibration images"):
            look(model, tensors, [])


def test_observed_tensors_are_freed_early() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(done.stdout) < LENGTH * SIDE * SIDE * 4 / 2**20 / 2, "MiB for 60 tensors of 4 MiB"
