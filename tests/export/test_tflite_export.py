"""The converter's traps: maps whose layout cannot be told from their shape, signatures, names."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from tests.models.golden import relative_error
from tinysam.export.errors import ExportError
from tinysam.export.formats.onnx import to_onnx
from tinysam.export.formats.onnx2tf import TFLiteSignature, layout_hints, to_tflite
from tinysam.export.tinyvit_graph import to_map, to_rows

SIDE = 16


class Ambiguous(nn.Module):
    """A square map with as many channels as its side is long, as rows and as a map again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, channels, 1), nn.Conv2d(channels, 5, 3, padding=1)
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(to_map(self.linear(to_rows(self.first(x))), SIDE))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def exported(channels: int, image: torch.Tensor, path: Path) -> nn.Module:
    torch.manual_seed(0)
    model = Ambiguous(channels).eval()
    to_onnx(model, {"image": image}, ("y",), path)
    return model


def test_only_ambiguous_maps_need_hints(tmp_path: Path, image: torch.Tensor) -> None:
    for channels, expected in ((SIDE, 2), (SIDE + 1, 0)):
        exported(channels, image, tmp_path / "graph.onnx")
        hints = layout_hints(onnx.load(tmp_path / "graph.onnx"))
        assert len(hints["operations"] if hints else []) == expected


def test_an_ambiguous_map_keeps_its_layout_and_needs_no_transposition(tmp_path: Path, image: torch.Tensor) -> None:
    model = exported(SIDE, image, tmp_path / "graph.onnx")
    signature = TFLiteSignature("run", tmp_path / "graph.onnx", {"image": image.numpy()}, ("y",), ("image",))
    limit = sys.getrecursionlimit()
    to_tflite([signature], tmp_path / "graph.tflite")
    assert sys.getrecursionlimit() == limit
    interpreter = Interpreter(str(tmp_path / "graph.tflite"))
    found = interpreter.get_signature_runner("run")(image=image.permute(0, 2, 3, 1).numpy())["y"]
    with torch.no_grad():
        expected = model(image).permute(0, 2, 3, 1)
    assert relative_error(found, expected) < 1e-5
    assert "TRANSPOSE" not in {operation["op_name"] for operation in interpreter._get_ops_details()}


def test_a_failing_conversion_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    signature = TFLiteSignature("run", tmp_path / "broken.onnx", {"x": np.zeros(1, np.float32)}, ("y",))
    with pytest.raises(ExportError, match=r"^out.tflite: conversion to TFLite failed: ") as raised:
        to_tflite([signature], tmp_path / "out.tflite")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out.tflite").exists()
