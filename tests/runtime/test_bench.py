"""`tinysam-bench`: every stage is measured, reports compare, mistakes are said in one line."""

import json
from pathlib import Path

import pytest

from tinysam.runtime.bench import cli

STAGES = ["decode image", "resize", "encoder", "decoder", "postprocess", "write overlay"]


@pytest.fixture
def report(disc_artifacts: Path, photo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "report.json"
    arguments = [str(photo), "--model", str(disc_artifacts), "--threads", "1,2", "--precision", "fp32"]
    assert cli.main([*arguments, "--backend", "onnx", "--repeats", "3", "--everything", "--json", str(path)]) == 0
    out = capfd.readouterr().out
    for stage in (*STAGES, "load encoder", "first result", "everything", "peak memory"):
        assert stage in out
    return path


def test_report_holds_every_stage_of_every_case(report: Path) -> None:
    data = json.loads(report.read_text())
    assert [case["threads"] for case in data["cases"]] == [1, 2]
    assert data["machine"]["cores"] >= 1
    for case in data["cases"]:
        assert list(case["stages_ms"]) == STAGES
        for times in case["stages_ms"].values():
            assert 0 < times["median"] <= times["p95"]
        assert case["image_size"] == [60, 40]
        memory = case["rss_mb"]  # of the process that also runs the tests, so only the growth says something
        assert 10 < memory["started"] <= memory["everything"] < memory["started"] + 500
        assert case["everything"]["prompts"] > 0


def test_comparison_gives_ratios(report: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = json.loads(report.read_text())
    for case in data["cases"]:
        for times in case["stages_ms"].values():
            times["median"] *= 2
    slower = tmp_path / "slower.json"
    slower.write_text(json.dumps(data))
    assert cli.main(["--compare", str(report), str(slower)]) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if line.strip().startswith("encoder")]
    assert len(lines) == 2
    assert all(line.endswith("2.00") for line in lines)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 2}', '{"schema": 1, "cases": [1], "machine": {}}'])
def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert cli.main(["--compare", str(path), str(path)]) == 2
    assert "not a report of tinysam-bench" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "nowhere"], 3, "no model at nowhere"),
        (["--backend", "tflite"], 2, "nothing to measure"),
        (["--compare", "a.json", "b.json"], 3, "a.json: no such file"),
    ],
)
def test_mistakes_are_said_in_one_line(
    disc_artifacts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    if "tflite" in arguments:
        pytest.importorskip("ai_edge_litert")
    monkeypatch.setenv("TINYSAM_MODEL", str(disc_artifacts))
    assert cli.main(arguments) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_unreadable_picture_fails_every_case(
    disc_artifacts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jpg").touch()
    code = cli.main([str(tmp_path / "empty.jpg"), "--model", str(disc_artifacts), "--precision", "fp32"])
    assert code == 1
    assert "empty file" in capfd.readouterr().err
