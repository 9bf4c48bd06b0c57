"""Factors before layers that no other layer can make room for."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from tinysam.calibration.onnx_int8 import OnnxScheme, quantize_onnx
from tinysam.calibration.spread import find_factors, spread
from tinysam.calibration.tensor_ranges import calibrate
from tinysam.export.formats.onnx import to_onnx

ROWS, WIDTH, OUTLIER, UNUSED = 256, 16, 3, 5
WEIGHT = "decoder.upscaling.first.weight"
GRID = 28


class Cells(nn.Module):
    """Cells with one channel far larger than the others and one that is always zero, read by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Module()
        self.decoder.upscaling = nn.Module()
        self.decoder.upscaling.first = nn.Linear(WIDTH, WIDTH)
        self.scale = nn.Parameter(torch.ones(WIDTH))
        with torch.no_grad():
            self.scale[OUTLIER], self.scale[UNUSED] = 20, 0
            self.decoder.upscaling.first.weight[:, OUTLIER] /= 20

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.decoder.upscaling.first(torch.tanh(x) * self.scale))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("cells") / "cells.onnx"
    to_onnx(Cells().eval(), {"x": torch.randn(ROWS, WIDTH)}, ("y",), path)
    return onnx.load(path)


def feeds(seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(ROWS, WIDTH)).astype(np.float32)} for _ in range(2)]


def answer(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString()).run(None, feed)[0]


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_an_outlier_channel_no_longer_sets_the_step_of_all_others(small: onnx.ModelProto) -> None:
    chosen = find_factors(small, feeds())
    assert list(chosen) == [WEIGHT]
    assert np.isfinite(chosen[WEIGHT]).all()
    assert (chosen[WEIGHT] > 0).all()
    errors = []
    for model in (small, spread(small, chosen)):
        quantized, _ = quantize_onnx(model, calibrate(model, feeds(), "minmax"), OnnxScheme("arm"))
        errors.append(distance(answer(quantized, feeds(1)[0]), answer(small, feeds(1)[0])))
    assert errors[1] < 0.5 * errors[0]


def test_graphs_without_such_layers_stay_as_they_are(small: onnx.ModelProto) -> None:
    model = onnx.ModelProto.FromString(small.SerializeToString())
    for place in (*model.graph.initializer, *model.graph.node):
        if isinstance(place, onnx.TensorProto) and place.name == WEIGHT:
            place.name = "other.weight"
        elif isinstance(place, onnx.NodeProto) and WEIGHT in place.input:
            place.input[1] = "other.weight"
    assert find_factors(model, feeds()) == {}
    assert spread(model, {}) is model


def decoder_feed() -> dict[str, np.ndarray]:
    """A click on a random embedding."""
    rng = np.random.default_rng(0)
    return {
        "image_embeddings": rng.normal(size=(1, 256, GRID, GRID)).astype(np.float32),
        "point_coords": np.array([[[200, 150], [0, 0]]], np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, 4 * GRID, 4 * GRID), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
        "iou_threshold": np.full(1, -np.inf, np.float32),
    }


def test_the_decoder_computes_the_same(artifacts_dir: Path) -> None:
    source = onnx.load(artifacts_dir / "decoder.fp32.onnx")
    chosen = find_factors(source, [decoder_feed()])
    assert len(chosen) == 2
    changed = spread(source, chosen)
    assert sum(node.op_type == "Mul" for node in changed.graph.node) == 2 + sum(
        node.op_type == "Mul" for node in source.graph.node
    )
    assert distance(answer(changed, decoder_feed()), answer(source, decoder_feed())) < 1e-5
