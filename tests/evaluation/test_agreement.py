"""The table that compares INT8 with fp32: by hand, and for real files, naive quantization among them."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tinysam.calibration.arrays import relative_error
from tinysam.evaluation import agreement, everything_agreement
from tinysam.evaluation.agreement import Found, Row, main, open_models, rows, summary, table
from tinysam.evaluation.backends import ModelChoice
from tinysam.evaluation.naive import main as write
from tinysam.evaluation.prompted import Answers
from tinysam.runtime.engines import usable_cores
from tinysam.runtime.manifest import sealed


def answers(first: np.ndarray, second: np.ndarray, better: int) -> Answers:
    """One prompt with two masks."""
    masks = np.stack([first, second])[None]
    predicted = np.array([[1.0 - better, better]], np.float32)
    chosen = predicted.argmax(axis=1)
    low_res = np.zeros((1, 2, 1, 1), np.float32)
    return Answers((1, 2), masks, low_res, predicted, chosen, masks[[0], chosen])


def test_rows_by_hand() -> None:
    truth = np.zeros((1, 4, 4), bool)
    truth[0, :2] = True  # 8 cells
    half, moved = truth[0].copy(), np.roll(truth[0], 1, axis=0)
    half[0] = False
    (row,) = rows("box", answers(half, moved, better=1), answers(half, moved, better=0), truth)
    assert row == Row("box", pytest.approx(4 / 12), pytest.approx(4 / 8), False)

    nothing = np.zeros((4, 4), bool)
    (row,) = rows("box", answers(nothing, half, better=0), answers(nothing, half, better=0), truth)
    assert row == Row("box", 0, 1, True)


def test_summary_and_table_by_hand() -> None:
    reference = [Row("box", 0.6, 1, True), Row("box", 0.8, 1, True), Row("click", 0.5, 1, True)]
    mine = [Row("box", 0.5, 0.9, True), Row("box", 0.8, 0.7, False), Row("click", 0.6, 0.95, True)]
    found = {"fp32": Found(reference, [0, 0]), "mine": Found(mine, [0.01, 0.03])}
    result = summary(found)
    assert result["mine"]["box_points"] == pytest.approx(-5)
    assert result["mine"]["box_agreement"] == pytest.approx(0.8)
    assert result["mine"]["box_same"] == 0.5
    assert table(result).splitlines()[-1] == (
        "| mine | 0.650 | -5.00 | 0.800 | 50.0 % | 0.600 | +10.00 | 0.950 | 100.0 % | 0.0200 |"
    )


def test_relative_error_by_hand() -> None:
    reference = np.array([[3, 4]], np.float32)
    assert relative_error(np.array([[3, 4.5]], np.float32), reference) == pytest.approx(0.1)
    assert relative_error(reference, reference) == 0


def test_a_missing_set_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--reference", str(tmp_path / "none"), str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("agreement: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "backends"),
    [(["--precision", "fp16"], ["tflite"]), ([], ["onnx", "tflite"]), (["--backend", "tflite"], ["tflite"])],
    ids=str,
)
@pytest.mark.parametrize("command", [agreement, everything_agreement], ids=["agreement", "everything"])
def test_candidates_are_the_engines_that_have_the_precision(
    artifacts_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: ModuleType,
    options: list[str],
    backends: list[str],
) -> None:
    manifest = json.loads((artifacts_dir / "manifest.json").read_text())
    for file in manifest["files"]:
        if (file["engine"], file["precision"]) == ("tflite", "fp32"):
            file["precision"] = "fp16"
    (tmp_path / "manifest.json").write_text(sealed(manifest))
    monkeypatch.setattr(ModelChoice, "open", lambda choice: choice)
    arguments = ["--data", str(tmp_path), "--reference", str(artifacts_dir), str(tmp_path)]
    reference, candidates = open_models(command.parser().parse_args([*arguments, *options]))
    assert reference == ModelChoice("onnx", artifacts_dir, "fp32", threads=usable_cores())
    precision = "fp16" if "fp16" in options else "int8"
    assert candidates == {
        f"{tmp_path} {backend}": replace(reference, artifacts=tmp_path, backend=backend, precision=precision)
        for backend in backends
    }


def test_fp32_files_give_the_masks_of_the_reference(artifacts_dir: Path, drawn: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = ["--data", str(drawn), "--reference", str(artifacts_dir), str(artifacts_dir), "--limit", "1"]
    assert main([*command, "--precision", "fp32", "--backend", "onnx", "--json", str(figures)]) == 0
    assert json.loads(figures.read_text())[f"{artifacts_dir} onnx"]["click_agreement"] == 1


def test_real_files_and_naive_ones(
    artifacts_dir: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    naive = tmp_path / "naive"
    assert write(["--calib-count", "4", str(artifacts_dir), str(naive)]) == 0
    figures = tmp_path / "figures.json"
    command = ["--data", str(drawn), "--reference", str(artifacts_dir), "--backend", "onnx", "--limit", "2"]
    assert main([*command, "--json", str(figures), str(artifacts_dir), str(naive)]) == 0
    assert "2 photographs" in capsys.readouterr().out
    found = json.loads(figures.read_text())
    assert list(found) == ["fp32", f"{artifacts_dir} onnx", f"{naive} onnx"]
    reference, ours, theirs = found.values()
    assert (reference["box_points"], reference["box_agreement"], reference["box_same"]) == (0, 1, 1)
    assert reference["embedding_error"] == 0
    assert all(0 < int8["embedding_error"] < 0.2 for int8 in (ours, theirs))
    # Drawn pictures are too easy to tell which of the two is nearer to fp32; that neither equals it is seen.
    assert all(0.9 < int8["box_agreement"] < 1 for int8 in (ours, theirs))
    assert ours["box_agreement"] != theirs["box_agreement"]
