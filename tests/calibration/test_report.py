"""Layer errors against hand-made drift, and a report that stands on its own."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from tests.calibration.test_onnx_int8 import Small
from tinysam.calibration.judge import Judgement
from tinysam.calibration.layer_errors import COLUMN, LayerError, layer_errors
from tinysam.calibration.onnx_int8 import OnnxScheme, quantize_onnx
from tinysam.calibration.report import MaskPair, Report, low_res_to_picture, write_report
from tinysam.calibration.tensor_ranges import calibrate
from tinysam.export.formats.onnx import to_onnx


def gemm(factor: float) -> onnx.ModelProto:
    """y = relu(x W) W with the first product off by `factor`."""
    weight = np.eye(4, dtype=np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2"], ["s"], "second"),
        helper.make_node("Relu", ["s"], ["y"], "last"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(weight * np.float32(factor), "w1"), numpy_helper.from_array(weight, "w2")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_layer_errors_by_hand() -> None:
    feeds = [{"x": np.ones((2, 4), np.float32)}]
    found = layer_errors(gemm(1.0), gemm(1.1), feeds)
    # an error of a tenth of the signal is 20 dB, and it is handed on to the second layer
    assert [(layer.name, layer.operation, round(layer.snr_db)) for layer in found] == [
        ("first", "Gemm", 20),
        ("second", "Gemm", 20),
    ]


@pytest.mark.parametrize("target", ["arm", "x86"])
def test_every_layer_of_files_for_either_processor_has_an_error(tmp_path: Path, target: str) -> None:
    """Those for arm hold some linear layers as convolutions of one pixel."""
    torch.manual_seed(0)
    feeds = [{"x": np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)}]
    to_onnx(Small().eval(), {"x": torch.from_numpy(feeds[0]["x"])}, ("y",), tmp_path / "small.onnx")
    model = onnx.load(tmp_path / "small.onnx")
    quantized, _ = quantize_onnx(model, calibrate(model, feeds, "minmax"), OnnxScheme(target))
    made = {name for node in quantized.graph.node for name in node.output}
    assert any(name.endswith(COLUMN) for name in made) == (target == "arm")
    found = layer_errors(model, quantized, feeds)
    assert len(found) == 4
    assert all(25 < layer.snr_db < 80 for layer in found)


def test_the_page_is_self_contained_and_escapes_names(tmp_path: Path) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    mask = np.ones((20, 30), bool)
    report = Report(
        "nano<b>",
        {"source": "photos", "images": ["a"], "sha256": "00"},
        layers={"encoder": [LayerError("conv", "Conv", 31.5)]},
        files=[{"path": "e.onnx", "size_bytes": 10, "mask_iou": 0.97, "same_mask": 1.0}],
        operations={"softmax": "why"},
        pairs=[MaskPair(image, "cat & dog", mask, ~mask)],
    )
    write_report(report, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "nano&lt;b&gt;" in page
    assert "cat &amp; dog" in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert "http" not in page
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts["layers"]["encoder"] == [{"name": "conv", "operation": "Conv", "snr_db": 31.5}]


@pytest.mark.parametrize("error", [float("inf"), 0.25])
def test_a_single_photograph_has_no_interval(tmp_path: Path, error: float) -> None:
    judgement = Judgement(1.5, 0.9, 1.0, error, error, 24).describe()
    decisions = {"judgements": {"onnx": judgement}, "sensitivity": [], "target": "arm", "ranges": "mse"}
    write_report(Report("nano", {"source": "photos", "images": ["a"], "sha256": "00"}, decisions=decisions), tmp_path)

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    facts = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    expected = None if np.isinf(error) else error
    assert facts["judgements"]["onnx"]["drop_error"] == expected
    cell = "<td>1.50</td>" if expected is None else "<td>1.50 +-0.25</td>"
    assert cell in (tmp_path / "report.html").read_text()


def test_low_res_masks_lose_the_padding() -> None:
    low_res = np.full((28, 28), -1, np.float32)
    low_res[:14] = 1  # a picture twice as wide as high fills the upper half of the square
    assert low_res_to_picture(low_res, (56, 112), (30, 60)).all()
    assert not low_res_to_picture(-low_res, (56, 112), (30, 60)).any()
