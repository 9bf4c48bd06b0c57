"""Convolutions of one pixel and linear layers, each as the other, in onnxruntime."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.calibration.small_graphs import graph, kinds, run, values
from tinysam.calibration.onnx_convolutions import linear_convolutions, pixel_convolutions


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


def linear_layers(inputs: int = 16) -> onnx.ModelProto:
    """Two linear layers of the same rows, one with a GELU behind it, and their sum."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a"], "first", transB=1),
        helper.make_node("Gelu", ["a"], ["b"], "gelu"),
        helper.make_node("Gemm", ["x", "w2"], ["c"], "second", transB=1),
        helper.make_node("Add", ["b", "c"], ["y"], "sum"),
    ]
    return graph(nodes, (24, inputs), {"w1": values(8, inputs), "b1": values(8), "w2": -values(8, inputs)})


def test_linear_layers_are_convolutions_of_the_same_names_with_the_gelu_between_them() -> None:
    changed, sources = pixel_convolutions(linear_layers(), frozenset({"first", "second"}))
    nodes = {node.name: node for node in changed.graph.node}
    assert [nodes[name].op_type for name in ("first", "second")] == ["Conv", "Conv"]
    assert nodes["gelu"].input[0] == nodes["first"].output[0]
    assert nodes["first"].input[0] == nodes["second"].input[0]
    assert {sources[nodes[name].output[0]] for name in ("first", "gelu", "second")} == {"a", "b", "c"}
    x = values(24, 16)
    np.testing.assert_allclose(run(changed, x), run(linear_layers(), x), atol=1e-5)


def test_linear_layers_that_are_not_named_have_any_number_of_rows_or_long_ones_stay() -> None:
    wide = linear_layers(inputs=128)
    assert kinds(pixel_convolutions(wide, frozenset({"first", "second"}))[0]) == kinds(wide)
    changed, sources = pixel_convolutions(linear_layers(), frozenset({"second"}))
    assert [node.op_type for node in changed.graph.node if node.name in ("first", "second")] == ["Gemm", "Conv"]
    assert set(sources.values()) == {"x", "c"}
    free = linear_layers()
    free.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "rows"
    assert kinds(pixel_convolutions(free, frozenset({"first", "second"}))[0]) == kinds(free)
