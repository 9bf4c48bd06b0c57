"""Weights cut off at the search's limits, in the real float encoder of both engines."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper

from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.onnx_int8 import OnnxScheme, quantize_onnx
from tinysam.calibration.tensor_ranges import TensorRanges, calibrate
from tinysam.calibration.tflite_int8 import quantize_tflite
from tinysam.calibration.tuned_files import clip_channels, tune_onnx, tune_tflite

SHARE = 0.8
"""Of the largest weight of a channel."""


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 3, 448, 448)).astype(np.float32)


@pytest.fixture(scope="module")
def found(artifacts_dir: Path, image: np.ndarray) -> TensorRanges:
    """Ranges, and limits of four fifths of every channel's largest weight."""
    source = artifacts_dir / "encoder.fp32.onnx"
    ranges = calibrate(source, [{"image": image}], "minmax")
    limits = {
        node.parameter: SHARE * abs(node.weight).reshape(len(node.weight), -1).max(1)
        for node in Graph(onnx.load(source)).linear_nodes()
    }
    return TensorRanges(ranges.method, ranges.observations, ranges.ranges, limits)


@pytest.fixture(scope="module")
def tuned(artifacts_dir: Path, found: TensorRanges, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `tuned.onnx` and `tuned.tflite`."""
    folder = tmp_path_factory.mktemp("tuned")
    tune_onnx(artifacts_dir / "encoder.fp32.onnx", folder / "tuned.onnx", found)
    graph = Graph(onnx.load(artifacts_dir / "encoder.fp32.onnx"))
    tune_tflite(artifacts_dir / "encoder.fp32.tflite", folder / "tuned.tflite", graph, found)
    return folder


def onnx_weights(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def tflite_scales(path: Path) -> list[np.ndarray]:
    """Scales per channel of every tensor that has them."""
    details = Interpreter(str(path)).get_tensor_details()
    scales = (detail["quantization_parameters"]["scales"] for detail in details if detail["dtype"] == np.int8)
    return [found for found in scales if len(found) > 1]


def test_clipping_by_hand() -> None:
    weight = np.array([[1.0, -3.0], [2.0, 0.5]], np.float32)
    limits = np.array([2.0, 1.0], np.float32)
    np.testing.assert_array_equal(clip_channels(weight, limits, 0), [[1, -2], [1, 0.5]])
    np.testing.assert_array_equal(clip_channels(weight, limits, 1), [[1, -1], [2, 0.5]])


def test_no_weight_exceeds_its_limit_and_others_are_untouched(
    artifacts_dir: Path, found: TensorRanges, tuned: Path
) -> None:
    before, after = onnx_weights(artifacts_dir / "encoder.fp32.onnx"), onnx_weights(tuned / "tuned.onnx")
    for name, values in before.items():
        if name in found.weight_limits:
            largest = abs(after[name]).reshape(len(values), -1).max(1)
            np.testing.assert_allclose(largest, found.weight_limits[name], rtol=1e-6)
        else:
            np.testing.assert_array_equal(after[name], values)


def test_both_engines_run_the_same_tuned_weights(artifacts_dir: Path, image: np.ndarray, tuned: Path) -> None:
    plain, expected = (
        ort.InferenceSession(str(path)).run(None, {"image": image})[0]
        for path in (artifacts_dir / "encoder.fp32.onnx", tuned / "tuned.onnx")
    )
    runner = Interpreter(str(tuned / "tuned.tflite")).get_signature_runner("encode")
    got = runner(image=np.ascontiguousarray(image.transpose(0, 2, 3, 1)))["image_embeddings"].transpose(0, 3, 1, 2)
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < 1e-3
    assert np.linalg.norm(plain - expected) / np.linalg.norm(expected) > 1e-2


def test_the_quantizers_choose_the_scales_that_were_searched_for(
    artifacts_dir: Path, found: TensorRanges, tuned: Path, tmp_path: Path
) -> None:
    quantize_onnx(tuned / "tuned.onnx", tmp_path / "int8.onnx", found, OnnxScheme("arm"))
    stored = onnx_weights(tmp_path / "int8.onnx")
    for name, limits in found.weight_limits.items():
        np.testing.assert_allclose(stored[f"{name}.scale"], limits / 127, rtol=1e-5)
    quantize_tflite(tuned / "tuned.tflite", tmp_path / "int8.tflite", Graph(onnx.load(tuned / "tuned.onnx")), found)
    chosen = tflite_scales(tmp_path / "int8.tflite")
    for limits in found.weight_limits.values():
        assert any(len(scales) == len(limits) and np.allclose(scales, limits / 127, rtol=1e-4) for scales in chosen)
