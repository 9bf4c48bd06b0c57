"""fp16: the range check, rounding, and the files' weights and metadata."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.half import LARGEST, allow_half, check_range, rounded_model, spelled_out, store_half
from tinysam.calibration.tflite_constants import to_bytes
from tinysam.export.formats.onnx import to_onnx


class Small(nn.Module):
    """A linear layer, a layer norm and another linear layer."""

    def __init__(self, gain: float, weight: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.norm, self.last = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4)
        with torch.no_grad():
            self.wide.weight *= gain
            self.norm.weight.uniform_(0.5, 2)
            self.norm.bias.uniform_(-1, 1)
            self.last.weight[0, 0] = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.wide(x)))


def graph(path: Path, gain: float, weight: float = 1.0) -> onnx.ModelProto:
    to_onnx(Small(gain, weight).eval(), {"x": torch.ones(3, 8)}, ("y",), path / "small.onnx")
    return onnx.load(path / "small.onnx")


FEEDS = [{"x": np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)}]


def run(model: onnx.ModelProto) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString()).run(None, FEEDS[0])[0]


def test_a_layer_beyond_the_range_is_named_also_if_only_its_squares_are(tmp_path: Path) -> None:
    assert check_range(graph(tmp_path, 1), FEEDS, "encoder") < 100
    with pytest.raises(CalibrationError, match=r"fp16: behind layer wide the encoder reaches .* use fp32 or int8"):
        check_range(graph(tmp_path, 300), FEEDS, "encoder")  # hundreds, whose squares are 10,000 times as large
    largest = np.abs(FEEDS[0]["x"] @ Small(300).wide.weight.detach().numpy().T).max()
    assert largest < LARGEST / 2 < largest**2


def test_a_parameter_beyond_the_range_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"fp16: encoder last\.weight holds 1e\+05; use fp32 or int8"):
        check_range(graph(tmp_path, 1, weight=1e5), FEEDS, "encoder")


def test_layer_norms_in_steps_are_the_same_function(tmp_path: Path) -> None:
    model = graph(tmp_path, 1)
    assert "LayerNormalization" not in {node.op_type for node in spelled_out(model).graph.node}
    np.testing.assert_allclose(run(spelled_out(model)), run(model), atol=1e-5)


def test_rounding_gives_errors_of_the_size_of_fp16(tmp_path: Path) -> None:
    model = graph(tmp_path, 1)
    found, expected = run(rounded_model(model)), run(model)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 5e-3


def test_weights_are_stored_in_fp16_and_the_metadata_allows_the_arithmetic(artifacts_dir: Path) -> None:
    content = (artifacts_dir / "encoder.fp32.tflite").read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    store_half(model)
    allow_half(model)
    half = to_bytes(model)
    assert len(half) < 0.52 * len(content)
    stored = schema.ModelT.InitFromPackedBuf(half, 0)
    (entry,) = [one for one in stored.metadata if one.name == b"reduced_precision_support"]
    assert bytes(stored.buffers[entry.buffer].data) == b"fp16accfp16"
    image = np.random.default_rng(0).normal(size=(1, 448, 448, 3)).astype(np.float32)
    expected, found = (
        Interpreter(model_content=one).get_signature_runner("encode")(image=image)["image_embeddings"]
        for one in (content, half)
    )
    assert 0 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 2e-3


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_what_is_float_in_int8_files_may_compute_in_fp16(artifacts_dir: Path, part: str) -> None:
    model = schema.ModelT.InitFromPackedBuf((artifacts_dir / f"{part}.int8.tflite").read_bytes(), 0)
    assert [one.name for one in model.metadata].count(b"reduced_precision_support") == 1
