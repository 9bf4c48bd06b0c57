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
from tinysam.export.decoder_graph import AttendStage, PrepareStage, decoder_graph
from tinysam.export.errors import ExportError
from tinysam.export.formats.onnx import to_onnx
from tinysam.export.formats.onnx2tf import TFLiteSignature, layout_hints, to_tflite
from tinysam.export.tinyvit_graph import EdgeBlock, to_map, to_rows
from tinysam.models import VARIANTS, Sam
from tinysam.models.layers import LayerNorm2d
from tinysam.models.tinyvit import TinyViTBlock

SIDE = 16


class Ambiguous(nn.Module):
    """A square map with as many channels as its side is long, as rows and as a map again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, channels, 1), nn.Conv2d(channels, 5, 3, padding=1)
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(to_map(self.linear(to_rows(self.first(x))), SIDE))


class Cells(nn.Module):
    """What the decoder does with as many cells as channels, and with a mask prompt as deep as its side is long."""

    def __init__(self) -> None:
        super().__init__()
        cells = SIDE * SIDE
        self.conv, self.map_norm, self.widen = nn.Conv2d(3, SIDE, 1), LayerNorm2d(SIDE), nn.Linear(SIDE, cells)
        self.position = nn.Parameter(torch.randn(1, cells, cells))
        self.norm, self.tokens = nn.LayerNorm(cells), nn.Parameter(torch.randn(1, 5, cells))
        for norm in (self.map_norm, self.norm):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dense = nn.functional.gelu(self.map_norm(self.conv(x))).flatten(2).transpose(1, 2)
        cells = self.norm(self.widen(dense) + self.position)
        return (self.tokens @ (cells + self.position).transpose(1, 2)).softmax(-1) @ cells


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


def converted(model: nn.Module, inputs: dict[str, torch.Tensor], images: tuple[str, ...], folder: Path) -> float:
    """Relative error of the TFLite file's first output, y, which is no map."""
    to_onnx(model, inputs, ("y",), folder / "graph.onnx")
    arrays = {name: value.numpy() for name, value in inputs.items()}
    to_tflite([TFLiteSignature("run", folder / "graph.onnx", arrays, ("y",), images)], folder / "graph.tflite")
    feed = {name: value.transpose(0, 2, 3, 1) if name in images else value for name, value in arrays.items()}
    found = Interpreter(str(folder / "graph.tflite")).get_signature_runner("run")(**feed)["y"]
    with torch.no_grad():
        return relative_error(found, model(*inputs.values()))


def test_as_many_cells_as_channels(tmp_path: Path, image: torch.Tensor) -> None:
    torch.manual_seed(0)
    assert converted(Cells().eval(), {"image": image}, ("image",), tmp_path) < 1e-5


class Residual(nn.Module):
    """Two residual sums with a GELU behind them, as in bottlenecks, and perhaps a reader that needs another order."""

    def __init__(self, turned: bool) -> None:
        super().__init__()
        self.turned = turned
        self.first, self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in (self.a, self.b):
            x = nn.functional.gelu(x + layer(x))
        return x.flatten(2).cumsum(2) if self.turned else to_rows(x)


@pytest.mark.parametrize(("turned", "transpositions"), [(False, 0), (True, 1)])
def test_sums_and_gelu_take_maps_as_they_are(
    tmp_path: Path, image: torch.Tensor, turned: bool, transpositions: int
) -> None:
    torch.manual_seed(0)
    assert converted(Residual(turned).eval(), {"image": image}, ("image",), tmp_path) < 1e-5
    operations = Interpreter(str(tmp_path / "graph.tflite"))._get_ops_details()
    assert [operation["op_name"] for operation in operations].count("TRANSPOSE") == transpositions


def test_cut_windows_are_converted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    block = TinyViTBlock(8, 2, 5).eval()
    nn.init.normal_(block.attn.attention_biases)
    rows = torch.randn(8 * 8, 8)  # as many channels as the map's side is long
    assert converted(EdgeBlock(block, 8).eval(), {"rows": rows}, (), tmp_path) < 1e-5


class AttendedCells(nn.Module):
    """The cells that the first half of a decoder in two calls gives, preparing included."""

    def __init__(self, prepare: PrepareStage, attend: AttendStage) -> None:
        super().__init__()
        self.prepare, self.attend = prepare, attend

    def forward(self, embeddings: torch.Tensor, *points: torch.Tensor) -> torch.Tensor:
        cells: torch.Tensor = self.attend(*self.prepare(embeddings), *points)[0]
        return cells


def test_a_decoder_with_as_many_cells_as_channels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = VARIANTS["nano"].encoder.build(224)
    sam = Sam(encoder, 4 * encoder.sizes.stride, mlp_dim=16, embed_dim=16)
    graph = decoder_graph(sam, (0, 1, 2, 3), channels_last=True)
    stage = AttendedCells(PrepareStage(graph), AttendStage(graph)).eval()
    inputs = {
        "image_embeddings": torch.randn(1, 4, 4, 16),
        "point_coords": 64 * torch.rand(1, 2, 2),
        "point_labels": torch.tensor([[1.0, -1.0]]),
    }
    assert converted(stage, inputs, (), tmp_path) < 1e-5


def test_a_failing_conversion_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    signature = TFLiteSignature("run", tmp_path / "broken.onnx", {"x": np.zeros(1, np.float32)}, ("y",))
    with pytest.raises(ExportError, match=r"^out.tflite: conversion to TFLite failed: ") as raised:
        to_tflite([signature], tmp_path / "out.tflite")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out.tflite").exists()
