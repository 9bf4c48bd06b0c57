"""Cheaper forms of a graph against the graph itself, in onnxruntime."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tinysam.calibration.onnx_cheap import linear_convolutions, make_cheap


def graph(
    nodes: list[onnx.NodeProto], shape: tuple[int | str, ...], constants: dict[str, np.ndarray]
) -> onnx.ModelProto:
    """From x of this shape to y."""
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def cheap(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    make_cheap(changed)
    return changed


def norm(shape: tuple[int | str, ...], scale: float = 1.0) -> onnx.ModelProto:
    node = helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["y"], "norm", axis=-1, epsilon=1e-3)
    return graph([node], shape, {"scale": np.full(16, scale), "bias": np.zeros(16)})


def test_a_plain_norm_of_rows_has_them_as_channels() -> None:
    model, x = norm((24, 16)), 0.05 * values(24, 16)  # so small that epsilon counts
    assert "InstanceNormalization" in kinds(cheap(model))
    np.testing.assert_allclose(run(cheap(model), x), run(model, x), atol=1e-5)


@pytest.mark.parametrize("model", [norm((24, 16), 2.0), norm(("rows", 16)), norm((1, 24, 16))])
def test_other_norms_stay(model: onnx.ModelProto) -> None:
    assert kinds(cheap(model)) == ["LayerNormalization"]


@pytest.mark.parametrize("shape", [(3, 49, 2, 32), (3, 2, 49, 32)])
def test_heads_move_by_two_exchanges(shape: tuple[int, ...]) -> None:
    model, x = graph([helper.make_node("Transpose", ["x"], ["y"], "t", perm=[0, 2, 1, 3])], shape, {}), values(*shape)
    assert kinds(cheap(model)).count("Transpose") == 2
    np.testing.assert_array_equal(run(cheap(model), x), run(model, x))


@pytest.mark.parametrize(("shape", "order"), [((3, 4, 5, 128), [0, 2, 1, 3]), ((3, 4, 5, 8), [0, 2, 3, 1])])
def test_other_transposes_stay(shape: tuple[int, ...], order: list[int]) -> None:
    model = graph([helper.make_node("Transpose", ["x"], ["y"], "t", perm=order)], shape, {})
    assert kinds(cheap(model)) == ["Transpose"]


def test_gelu_with_tanh_is_within_a_thousandth() -> None:
    model = graph([helper.make_node("Gelu", ["x"], ["y"], "g", approximate="none")], (1, 4001), {})
    x = np.linspace(-6, 6, 4001, dtype=np.float32)[None]
    assert 0 < np.abs(run(cheap(model), x) - run(model, x)).max() < 1e-3


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
