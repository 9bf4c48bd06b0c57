"""Multiply-accumulates by hand, and matrix products that are really computed."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tinysam.runtime.bench import limit
from tinysam.runtime.bench.limit import product_jobs
from tinysam.runtime.bench.macs import click_macs, count_macs
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.manifest import PRECISIONS, read_manifest


def bench_tools(engine: str) -> ModuleType:
    tools = FORMATS[engine].bench_tools()
    assert tools is not None
    return tools


def onnx_model(path: Path) -> Path:
    """A 3x3 convolution of 4 groups with stride 2, a product with a constant, one of two computed tensors, a Gemm."""
    onnx = pytest.importorskip("onnx")
    random = np.random.default_rng(0)
    weights = {"kernel": (8, 2, 3, 3), "matrix": (9, 5), "gemm": (5, 6)}
    values = [onnx.numpy_helper.from_array(random.random(s).astype(np.float32), n) for n, s in weights.items()]
    values.append(onnx.numpy_helper.from_array(np.array([0, 8, -1]), "shape"))
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["x", "kernel"], ["y"], name="a", group=4, strides=[2, 2], pads=[1, 1, 1, 1]),  # (n, 8, 3, 3)
        make("Reshape", ["y", "shape"], ["r"], name="b"),  # (n, 8, 9)
        make("MatMul", ["r", "matrix"], ["m"], name="c"),  # (n, 8, 5)
        make("Transpose", ["m"], ["t"], name="d", perm=[0, 2, 1]),
        make("MatMul", ["m", "t"], ["s"], name="e"),  # (n, 8, 8)
        make("Squeeze", ["m"], ["q"], name="f"),
        make("Gemm", ["q", "gemm"], ["g"], name="h"),  # (8, 6)
    ]
    inputs = [onnx.helper.make_tensor_value_info("x", 1, ["n", 8, 6, 6])]
    outputs = [onnx.helper.make_tensor_value_info(name, 1, None) for name in ("s", "g")]
    graph = onnx.helper.make_graph(nodes, "graph", inputs, outputs, values)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_operations_of_an_onnx_file_are_counted_by_hand(tmp_path: Path) -> None:
    path = onnx_model(tmp_path / "model.onnx")
    assert count_macs(path, lengths={"n": 1}) == 8 * 9 * 2 * 9 + 8 * 9 * 5 + 8 * 5 * 8 + 8 * 5 * 6


def test_products_in_a_branch_and_of_a_constant_on_the_left_are_counted(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weights = {"left": (3, 4), "right": (5, 6), "none": (1, 6)}
    stored = [onnx.numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in weights.items()]
    stored.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    then = onnx.helper.make_graph([make("MatMul", ["p", "right"], ["t"], name="a")], "then", [], [value("t", 1, None)])
    other = onnx.helper.make_graph([make("Identity", ["none"], ["e"])], "else", [], [value("e", 1, None)])
    nodes = [
        make("MatMul", ["left", "x"], ["p"], name="b"),  # (3, 5)
        make("Greater", ["flag", "zero"], ["c"]),
        make("If", ["c"], ["y"], then_branch=then, else_branch=other),  # (3, 6)
    ]
    graph = onnx.helper.make_graph(
        nodes, "g", [value("x", 1, [4, 5]), value("flag", 1, [1])], [value("y", 1, None)], stored
    )
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)
    assert count_macs(path) == 3 * 4 * 5 + 3 * 5 * 6
    assert count_macs(path, values={"flag": 0}) == 3 * 4 * 5


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_fully_connected_layer_is_counted_and_computed(tmp_path: Path, precision: str) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    path = tmp_path / "product.tflite"
    path.write_bytes(bench_tools("tflite").tflite_product(precision, 32))
    assert count_macs(path) == 32**3
    model = interpreter.Interpreter(model_path=str(path))
    model.allocate_tensors()
    kind = np.int8 if precision == "int8" else np.float32
    left = np.zeros((32, 32), kind)
    left[3, 4] = 1
    model.set_tensor(model.get_input_details()[0]["index"], left)
    model.invoke()
    out = model.get_tensor(model.get_output_details()[0]["index"])
    np.testing.assert_allclose(out[3], limit.matrix(kind, 32)[:, 4])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_product_of_onnxruntime_is_numpys(precision: str) -> None:
    pytest.importorskip("onnxruntime")
    (found,) = product_jobs(precision, 1, 64)["onnx"]()
    left, right = limit.left_type(precision), np.int8 if precision == "int8" else np.float32
    wide = np.int64 if precision == "int8" else np.float64
    expected = limit.matrix(left, 64).astype(wide) @ limit.matrix(right, 64).astype(wide)
    assert found.dtype == (np.int32 if precision == "int8" else np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_both_engines_count_the_same(real_artifacts: Path) -> None:
    counts: dict[tuple[str, str], set[int]] = {}
    for file in read_manifest(real_artifacts).files:
        counts.setdefault((file.part, file.precision), set()).add(click_macs(real_artifacts / file.path, file))
    ones = {("encoder", "int8"): 16 * 224 * 224}  # the row of the first product whose weight is its bias, in ONNX
    for kind, found in counts.items():
        assert min(found) > 1e8
        assert max(found) - min(found) == ones.get(kind, 0), kind
