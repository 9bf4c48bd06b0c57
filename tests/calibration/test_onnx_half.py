"""Graphs with operations in fp16 against the graphs in fp32, in onnxruntime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.calibration.small_graphs import graph, kinds, run, values
from tinysam.calibration.onnx_cheap import make_cheap


def products(rows: int = 12) -> onnx.ModelProto:
    """Scores of x with itself, times x, times a constant."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "t"], ["s"], "scores"),
        helper.make_node("Softmax", ["s"], ["w"], "softmax"),
        helper.make_node("MatMul", ["w", "x"], ["v"], "values"),
        helper.make_node("MatMul", ["v", "c"], ["y"], "constant"),
    ]
    return graph(nodes, ("prompts", rows, 16), {"c": values(16, 4)})


def test_products_of_activations_compute_in_fp16_and_share_conversions() -> None:
    changed = onnx.ModelProto.FromString(products().SerializeToString())
    make_cheap(changed, half=("MatMul",))
    assert in_half(changed) == {"turn", "scores", "values"}
    casts = [node.input[0] for node in changed.graph.node if node.op_type == "Cast"]
    assert sorted(casts) == ["s.half", "v.half", "w", "x"]
    x = 0.3 * values(3, 12, 16)
    exact, rounded = run(products(), x), run(changed, x)
    assert 1e-5 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 2e-3


def test_products_of_few_rows_stay_in_fp32() -> None:
    changed = onnx.ModelProto.FromString(products(rows=4).SerializeToString())
    make_cheap(changed, half=("MatMul",))
    assert changed == products(rows=4)


def test_what_is_reshaped_between_products_in_fp16_stays_in_fp16() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["a"], "first"),
        helper.make_node("Reshape", ["a", "shape"], ["b"], "reshape"),
        helper.make_node("MatMul", ["b", "b"], ["y"], "second"),
    ]
    model = graph(nodes, (4, 16, 16), {})
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 2, 16, 16]), "shape"))
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    make_cheap(changed, half=("MatMul",))
    assert kinds(changed) == ["Cast", "MatMul", "Reshape", "MatMul", "Cast"]
    x = 0.3 * values(4, 16, 16)
    np.testing.assert_allclose(run(changed, x), run(model, x), atol=0.05)


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
