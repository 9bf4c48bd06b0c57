"""`tinysam-calibrate`: INT8 files anew from fp32 files, and folders that it cannot work on."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tinysam.calibration.judge import Judge, Judgement
from tinysam.export.calibrate_cli import main
from tinysam.runtime.manifest import ModelFile, read_manifest, verify_file, write_manifest


def folder_of(artifacts_dir: Path, tmp_path: Path, wanted: set[tuple[str, str]]) -> Path:
    """An artifact folder with the files of some (engine, precision)."""
    folder = tmp_path / artifacts_dir.name
    folder.mkdir()
    manifest = read_manifest(artifacts_dir)
    files = tuple(file for file in manifest.files if (file.engine, file.precision) in wanted)
    for file in files:
        os.link(artifacts_dir / file.path, folder / file.path)
    write_manifest(replace(manifest, files=files), folder)
    return folder


def int8_files(folder: Path) -> list[ModelFile]:
    """The INT8 files of a folder, checked against their hashes."""
    files = [file for file in read_manifest(folder).files if file.precision == "int8"]
    for file in files:
        verify_file(folder, file)
    return files


def test_new_files_and_a_report_then_a_report_alone(
    artifacts_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(artifacts_dir, tmp_path, {("onnx", "fp32")})
    few = ["--calib-count", "4", "--ranges", "minmax", "--max-drop", "none"]
    assert main([str(folder), *few, "--target", "x86"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == f"report in {folder / 'report.html'}"
    assert "fp16" not in told.err  # ONNX files for x86 have none of it, so it is not tried
    steps = [line.split("]")[0] for line in told.err.splitlines()]
    assert steps == [f"[{i + 1}/{len(steps)}" for i in range(len(steps))]
    files = int8_files(folder)
    assert [file.path for file in files] == ["encoder.int8.onnx", "decoder.int8.onnx"]
    report = json.loads((folder / "report.json").read_text())
    assert len(report["calibration"]["images"]) == 4
    assert (report["ranges"], list(report["judgements"])) == ("minmax", ["onnx"])
    assert report["judgements"]["onnx"]["agreement"] > 0.8

    assert main([str(folder), *few, "--calib-count", "5", "--report"]) == 0
    assert int8_files(folder) == files
    assert len(json.loads((folder / "report.json").read_text())["calibration"]["images"]) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]


def test_an_unreachable_budget_publishes_nothing_but_keeps_the_report(
    artifacts_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # No block helps, so that the first attempt is the last.
    monkeypatch.setattr("tinysam.export.int8.budget.candidates", lambda found: [])
    monkeypatch.setattr(Judge, "judge", lambda self, encode, decode: Judgement(drop=5.0, agreement=0.8, same=0.9))
    folder = folder_of(artifacts_dir, tmp_path, {("onnx", "fp32")})
    before = (folder / "manifest.json").read_bytes()
    assert main([str(folder), "--calib-count", "4", "--ranges", "minmax", "--max-drop", "4"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "INT8 loses 5.00 points of mean IoU" in message
    assert "with 0 blocks in float, allowed are 4 points and 0.95; nothing was published" in message
    assert (folder / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / f"{folder.name}-report").iterdir()) == [
        "report.html",
        "report.json",
    ]


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that fails before it starts."""
    assert main(list(arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_folder_without_float_files(artifacts_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(artifacts_dir, tmp_path, {("onnx", "int8"), ("tflite", "fp32")})
    assert "has no fp32 ONNX files, from which INT8 is made" in failure(capsys, str(folder))


def test_weights_that_are_not_those_of_the_folder(
    artifacts_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(artifacts_dir, tmp_path, {("onnx", "fp32")})
    torch.save({}, tmp_path / "other.pth")
    line = failure(capsys, str(folder), "--checkpoint", str(tmp_path / "other.pth"))
    assert "other weights than given: give that file with --checkpoint" in line


def test_a_damaged_float_file(artifacts_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(artifacts_dir, tmp_path, {("onnx", "fp32")})
    (folder / "encoder.fp32.onnx").unlink()
    (folder / "encoder.fp32.onnx").write_bytes(b"half")
    assert "encoder.fp32.onnx" in failure(capsys, str(folder))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--ranges", "guess"], "ranges guess: expected minmax or percentile or mse or search"),
        (["--max-drop", "-1"], "largest drop -1.0: expected 0 to 100 points of mean IoU"),
        (["--max-drop", "nan"], "largest drop nan: expected 0 to 100 points of mean IoU"),
        (["--calib-dir", "absent/"], "calibration images absent: nothing found"),
    ],
)
def test_senseless_options(
    artifacts_dir: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert expected in failure(capsys, str(artifacts_dir), *arguments)


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "absent" in failure(capsys, str(tmp_path / "absent"))
