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


@pytest.mark.parametrize("model", [norm(("rows", 16)), norm((24, 16), axis=0)])
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


@pytest.mark.parametrize(("shape", "changed"), [(("prompts", 6, 16), True), (("prompts", "points", 16), False)])
def test_a_norm_of_the_cells_of_any_number_of_prompts(shape: tuple[int | str, ...], changed: bool) -> None:
    model = norm(shape, 2.0, 3.0)
    assert ("LayerNormalization" not in kinds(cheap(model))) == changed
    for prompts in (1, 3):
        x = 0.05 * values(prompts, 6, 16)
        np.testing.assert_allclose(run(cheap(model), x), run(model, x), atol=1e-5)


def products() -> onnx.ModelProto:
    """Scores of x with itself, times x, times a constant."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "t"], ["s"], "scores"),
        helper.make_node("Softmax", ["s"], ["w"], "softmax"),
        helper.make_node("MatMul", ["w", "x"], ["v"], "values"),
        helper.make_node("MatMul", ["v", "c"], ["y"], "constant"),
    ]
    return graph(nodes, ("prompts", 6, 16), {"c": values(16, 4)})


def test_products_of_activations_compute_in_fp16_and_share_conversions() -> None:
    changed = onnx.ModelProto.FromString(products().SerializeToString())
    make_cheap(changed, half=("MatMul",))
    assert in_half(changed) == {"turn", "scores", "values"}
    casts = [node.input[0] for node in changed.graph.node if node.op_type == "Cast"]
    assert sorted(casts) == ["s.half", "v.half", "w", "x"]
    x = 0.3 * values(3, 6, 16)
    exact, rounded = run(products(), x), run(changed, x)
    assert 1e-5 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 2e-3


def gelus(groups: int = 1) -> onnx.ModelProto:
    """Convolution, GELU, convolution, GELU that is read twice."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "first"),
        helper.make_node("Gelu", ["a"], ["b"], "g1", approximate="tanh"),
        helper.make_node("Conv", ["b", "w2", "bias"], ["c"], "second", group=groups),
        helper.make_node("Gelu", ["c"], ["d"], "g2", approximate="tanh"),
        helper.make_node("Conv", ["d", "w3"], ["e"], "third"),
        helper.make_node("Add", ["d", "e"], ["y"], "sum"),
    ]
    shapes = {"w1": (8, 3, 1, 1), "w2": (8, 8 // groups, 3, 3), "bias": (8,), "w3": (8, 8, 1, 1)}
    stored = [numpy_helper.from_array(0.3 * rng.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    sizes = {"x": (1, 3, 9, 9), "y": (1, 8, 7, 7)}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sizes.items()]
    made = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def halves(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    make_cheap(changed, half=("Gelu", "Conv"))
    onnx.checker.check_model(changed, full_check=True)
    return changed


def test_results_differ_by_rounding_to_fp16_only() -> None:
    x = np.random.default_rng(1).normal(size=(1, 3, 9, 9)).astype(np.float32)
    exact, rounded = run(gelus(), x), run(halves(gelus()), x)
    assert 1e-5 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 2e-3


def in_half(model: onnx.ModelProto) -> set[str]:
    """Names of the operations that give fp16."""
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    nodes = [node for node in model.graph.node if node.op_type != "Cast"]
    return {node.name for node in nodes if kinds.get(node.output[0]) == TensorProto.FLOAT16}


@pytest.mark.parametrize("groups", [1, 8])
def test_convolutions_between_gelus_follow_them_and_what_others_read_comes_back(groups: int) -> None:
    changed = halves(gelus(groups))
    assert in_half(changed) == {"g1", "second", "g2", "third"}  # the first reads the image
    assert sum(node.op_type == "Cast" for node in changed.graph.node) == 3  # a to fp16; d and e back, for the sum
    stored = {tensor.name for tensor in changed.graph.initializer}
    assert stored == {"w1", "w2.half", "bias.half", "w3.half"}


def test_a_convolution_of_a_float_tensor_that_no_gelu_reads_stays_in_fp32() -> None:
    model = gelus()
    (third,) = (node for node in model.graph.node if node.name == "third")
    third.input[0] = "d.float"
    model.graph.node.insert(4, helper.make_node("Relu", ["d"], ["d.float"], "relu"))
    assert in_half(halves(model)) == {"g1", "second", "g2"}
