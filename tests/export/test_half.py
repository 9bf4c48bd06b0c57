"""The trial of fp16: what it finds, and what becomes of files whose model does not bear it."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from tests.calibration.test_half import Small
from tinysam.calibration.blocks import Block
from tinysam.calibration.judge import Judge, Judgement
from tinysam.export import calibrate_cli, cli
from tinysam.export.formats.onnx import to_onnx
from tinysam.export.int8.budget import Sensitivity
from tinysam.export.int8.half import try_half
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.manifest import ModelFile, read_manifest, write_manifest


def judge_of(agreement: float) -> Any:
    """A judge that finds this agreement."""
    return SimpleNamespace(judge=lambda encode, decode: Judgement(0.0, agreement, 1.0))


def test_a_layer_beyond_the_range_on_the_last_photograph_is_named(tmp_path: Path) -> None:
    import torch

    to_onnx(Small(1).eval(), {"image": torch.ones(3, 8)}, ("y",), tmp_path / "small.onnx")
    parts: Any = {"encoder": SimpleNamespace(graph=onnx.load(tmp_path / "small.onnx"))}
    photographs = [np.ones((3, 8), np.float32) for _ in range(12)]
    photographs[-1] *= 1e6
    runs: Any = [SimpleNamespace(feed=SimpleNamespace(image=image)) for image in photographs]
    floats: Any = None
    trial = try_half(parts, floats, runs, judge_of(1.0))
    assert not trial.passed
    assert trial.judgement is None
    assert trial.reason.startswith("fp16: behind layer wide the encoder reaches")
    assert trial.describe()["reason"] == trial.reason


@pytest.mark.parametrize(("agreement", "passed"), [(0.979, False), (0.98, True), (float("nan"), False)])
def test_masks_decide_where_the_range_is_enough(artifacts_dir: Path, agreement: float, passed: bool) -> None:
    parts: Any = {"decoder": SimpleNamespace(graph=onnx.load(artifacts_dir / "decoder.fp32.onnx"))}
    size = parts["decoder"].graph.graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    prompt = {
        "point_coords": np.full((1, 2, 2), 100, np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, 4 * size, 4 * size), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
        "iou_threshold": np.full(1, -np.inf, np.float32),
    }
    runs: Any = [SimpleNamespace(embedding=np.zeros((1, 256, size, size), np.float32), prompts=[prompt])]
    trial = try_half(parts, Graphs(artifacts_dir, "onnx", "fp32"), runs, judge_of(agreement))
    assert trial.passed == passed
    assert ("rounded to fp16 the model keeps an IoU" in trial.reason) == (not passed)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of fp16 that end below the values of any model."""
    monkeypatch.setattr("tinysam.calibration.half.LARGEST", 30.0)


@pytest.mark.usefixtures("narrow")
def test_fp16_files_are_refused_in_one_line_with_the_layer_and_nothing_is_published(
    artifacts_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(sam: Any, settings: Any, cases: Any, folder: Path, engine: str, progress: Any) -> list[ModelFile]:
        files = [f for f in read_manifest(artifacts_dir).files if (f.engine, f.precision) == (engine, "fp32")]
        for file in files:
            os.link(artifacts_dir / file.path, folder / file.path)
        return files

    monkeypatch.setattr("tinysam.export.pipeline.write_float", written)
    options = ["--precision", "fp16", "--format", "tflite", "--calib-count", "1", "--ranges", "minmax"]
    assert cli.main([*options, "--out", str(tmp_path / "out")]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tinysam-export: ")]
    assert "fp16: " in line
    assert "encoder" in line
    assert line.endswith("use fp32 or int8; nothing was published")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("narrow")
def test_int8_files_then_compute_in_fp32_and_say_why(
    artifacts_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Sensitivity("encoder", Block("smooth", (), False, 1.0), Judgement(0.0, 1.0, 1.0))
    monkeypatch.setattr("tinysam.export.int8.pipeline.sensitivities", lambda *arguments: [alone])
    monkeypatch.setattr(Judge, "judge", lambda self, encode, decode: Judgement(0.0, 1.0, 1.0))
    folder = tmp_path / artifacts_dir.name
    folder.mkdir()
    manifest = read_manifest(artifacts_dir)
    files = tuple(file for file in manifest.files if (file.engine, file.precision) == ("onnx", "fp32"))
    for file in files:
        os.link(artifacts_dir / file.path, folder / file.path)
    write_manifest(replace(manifest, files=files), folder)
    assert calibrate_cli.main([str(folder), "--calib-count", "1", "--ranges", "minmax", "--max-drop", "none"]) == 0
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "trial of fp16" in line]
    reason = told.split("not allowed: ")[1].removesuffix(")")
    assert reason.startswith("fp16: ")
    assert "encoder" in reason
    for file in read_manifest(folder).files:
        if file.precision == "int8":
            assert file.quantization is not None
            assert file.quantization["fp16"]["reason"] == reason
            casts = [node for node in onnx.load(folder / file.path).graph.node if node.op_type == "Cast"]
            assert onnx.TensorProto.FLOAT16 not in {node.attribute[0].i for node in casts}
    assert json.loads((folder / "report.json").read_text())["fp16"]["reason"] == reason
    assert "it computes in fp32 everywhere. fp16: " in (folder / "report.html").read_text()
