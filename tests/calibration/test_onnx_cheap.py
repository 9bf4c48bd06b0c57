"""Cheaper forms of a graph against the graph itself, in onnxruntime."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.calibration.small_graphs import graph, kinds, run, values
from tinysam.calibration.onnx_cheap import make_cheap


def cheap(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    make_cheap(changed)
    return changed


def norm(shape: tuple[int | str, ...], scale: float = 1.0, bias: float = 0.0, axis: int = -1) -> onnx.ModelProto:
    node = helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["y"], "norm", axis=axis, epsilon=1e-3)
    return graph([node], shape, {"scale": scale * values(16) ** 2 + scale, "bias": bias * values(16)})


@pytest.mark.parametrize("shape", [(24, 16), (1, 6, 4, 16)])
@pytest.mark.parametrize(("scale", "bias"), [(0.0, 0.0), (2.0, 0.0), (2.0, 3.0)])
def test_a_norm_of_rows_has_them_as_channels(shape: tuple[int, ...], scale: float, bias: float) -> None:
    model, x = norm(shape, scale, bias), 0.05 * values(*shape)  # so small that epsilon counts
    if not scale:
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(16, np.float32), "scale"))
    assert "LayerNormalization" not in kinds(cheap(model))
    assert (kinds(cheap(model)).count("Mul"), kinds(cheap(model)).count("Add")) == (scale != 0, bias != 0)
    np.testing.assert_allclose(run(cheap(model), x), run(model, x), atol=1e-5)


def test_a_norm_over_another_axis_stays() -> None:
    assert kinds(cheap(norm((24, 16), axis=0))) == ["LayerNormalization"]


@pytest.mark.parametrize("first", [3, "windows"])
@pytest.mark.parametrize("shape", [(3, 49, 2, 32), (3, 2, 49, 32)])
def test_heads_move_by_two_exchanges(shape: tuple[int, ...], first: int | str) -> None:
    node = helper.make_node("Transpose", ["x"], ["y"], "t", perm=[0, 2, 1, 3])
    model, x = graph([node], (first, *shape[1:]), {}), values(*shape)
    assert kinds(cheap(model)).count("Transpose") == 2
    np.testing.assert_array_equal(run(cheap(model), x), run(model, x))


@pytest.mark.parametrize(
    ("shape", "order"),
    [((3, 4, 5, 128), [0, 2, 1, 3]), ((3, 4, 5, 8), [0, 2, 3, 1]), ((3, "points", 5, 8), [0, 2, 1, 3])],
)
def test_other_transposes_stay(shape: tuple[int | str, ...], order: list[int]) -> None:
    model = graph([helper.make_node("Transpose", ["x"], ["y"], "t", perm=order)], shape, {})
    assert kinds(cheap(model)) == ["Transpose"]


def test_gelu_with_tanh_is_within_a_thousandth() -> None:
    model = graph([helper.make_node("Gelu", ["x"], ["y"], "g", approximate="none")], (1, 4001), {})
    x = np.linspace(-6, 6, 4001, dtype=np.float32)[None]
    assert 0 < np.abs(run(cheap(model), x) - run(model, x)).max() < 1e-3


def test_scale_and_bias_of_rows_cut_from_longer_ones_are_applied_to_these() -> None:
    model = norm(("rows", 16), 2.0, 3.0)
    model.graph.node[0].input[0] = "cut"
    model.graph.node.insert(0, helper.make_node("Reshape", ["x", "narrow"], ["cut"], "cut"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 16]), "narrow"))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 64
    constants = {t.name: tuple(t.dims) for t in cheap(model).graph.initializer}
    assert (constants["scale.4"], constants["bias.4"]) == ((64,), (64,))
    x = 0.05 * values(3, 64)
    np.testing.assert_allclose(run(cheap(model), x), run(model, x), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "changed"), [(("prompts", 6, 16), True), (("rows", 16), True), (("prompts", "points", 16), False)]
)
def test_a_norm_of_the_cells_of_any_number_of_prompts(shape: tuple[int | str, ...], changed: bool) -> None:
    model = norm(shape, 2.0, 3.0)
    assert ("LayerNormalization" not in kinds(cheap(model))) == changed
    wide = any(node.op_type == "Reshape" and node.name == "y.wide" for node in cheap(model).graph.node)
    assert wide == (changed and len(shape) == 3)  # scale and bias of two of the six rows at once
    for prompts in (1, 3):
        x = 0.05 * values(*(prompts, 6, 16)[-len(shape) :])
        np.testing.assert_allclose(run(cheap(model), x), run(model, x), atol=1e-5)
