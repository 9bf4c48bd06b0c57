"""Convolutions of one pixel as linear layers, in onnxruntime."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.calibration.small_graphs import graph, kinds, run, values
from tinysam.calibration.onnx_convolutions import linear_convolutions


def convolution(kernel: int = 1, groups: int = 1, **attributes: list[int]) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["x", "weight", "bias"], ["y"], "conv", group=groups, **attributes)
    weight = values(6, 4 // groups, kernel, kernel) if groups == 1 else values(4, 1, kernel, kernel)
    return graph([node], (1, 4, 5, 7), {"weight": weight, "bias": values(len(weight))})


def test_a_convolution_of_one_pixel_is_a_linear_layer_of_the_same_name() -> None:
    model, x = convolution(), values(1, 4, 5, 7)
    linear, sources = linear_convolutions(model, frozenset())
    (layer,) = (node for node in linear.graph.node if node.op_type == "Gemm")
    assert layer.name == "conv"
    assert sources == {layer.input[0]: "x"}
    np.testing.assert_allclose(run(linear, x), run(model, x), atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: convolution(kernel=3),
        lambda: convolution(groups=4),
        lambda: convolution(strides=[2, 2]),
        lambda: convolution(pads=[1, 1, 1, 1]),
    ],
)
def test_other_convolutions_stay(make: Callable[[], onnx.ModelProto]) -> None:
    linear, sources = linear_convolutions(make(), frozenset())
    assert kinds(linear) == ["Conv"]
    assert sources == {}


def test_a_convolution_that_is_to_stay_float_stays() -> None:
    assert kinds(linear_convolutions(convolution(), frozenset({"conv"}))[0]) == ["Conv"]
