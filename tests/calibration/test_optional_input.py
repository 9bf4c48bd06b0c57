"""A graph that skips what an absent input decides, against the graph that computes it."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.optional_input import skip_unless_given

LAST = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def decoder() -> onnx.ModelProto:
    """cells + [mask * has, 1 - has] @ LAST, where something else reads a sum of the mask, too."""
    nodes = [
        helper.make_node("Relu", ["mask"], ["positive"], "positive"),
        helper.make_node("Mul", ["positive", "has"], ["masked"], "masked"),
        helper.make_node("Sub", ["one", "has"], ["absent"], "absent"),
        helper.make_node("Expand", ["absent", "shape"], ["column"], "column"),
        helper.make_node("Concat", ["masked", "column"], ["both"], "both", axis=1),
        helper.make_node("MatMul", ["both", "last"], ["dense"], "dense"),
        helper.make_node("Abs", ["mask"], ["size"], "size"),
        helper.make_node("Add", ["cells", "dense"], ["y"], "y"),
    ]
    shapes = {"mask": (5, 3), "has": (1,), "cells": (5, 6), "y": (5, 6), "size": (5, 3)}
    sides = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    constants = {"one": np.ones(1, np.float32), "shape": np.array([5, 1]), "last": LAST}
    made = helper.make_graph(
        nodes,
        "decoder",
        [sides[name] for name in ("mask", "has", "cells")],
        [sides[name] for name in ("y", "size")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def skipping() -> onnx.ModelProto:
    model = decoder()
    skip_unless_given(model, "has", "dense", LAST[-1:])
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, has: float) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    feed = {"mask": rng.normal(size=(5, 3)), "has": np.array([has]), "cells": rng.normal(size=(5, 6))}
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {name: array.astype(np.float32) for name, array in feed.items()})


@pytest.mark.parametrize("has", [0.0, 1.0])
def test_results_are_the_same(has: float) -> None:
    for expected, got in zip(run(decoder(), has), run(skipping(), has), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_only_what_others_read_is_computed_in_any_case() -> None:
    outside = [node.op_type for node in skipping().graph.node]
    assert outside == ["Greater", "If", "Abs", "Add"]


def test_a_tensor_that_nothing_makes_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="no operation of the graph makes cells"):
        skip_unless_given(decoder(), "has", "cells", LAST[-1:])
