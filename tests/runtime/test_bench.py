"""`tinysam-bench`: every stage is measured, reports compare, mistakes are said in one line."""

import json
from pathlib import Path

import pytest

from tests.runtime.conftest import picture
from tinysam.runtime.bench import cli
from tinysam.runtime.bench.measure import Case
from tinysam.runtime.bench.report import table

STAGES = ["decode image", "resize", "encoder", "decoder", "postprocess", "write overlay"]


@pytest.fixture(scope="module")
def report(disc_artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    path, photo = folder / "report.json", folder / "photo.png"
    picture(60, 40).save(photo)
    arguments = [str(photo), "--model", str(disc_artifacts), "--threads", "1,2", "--precision", "fp32"]
    assert cli.main([*arguments, "--backend", "onnx", "--repeats", "3", "--everything", "--json", str(path)]) == 0
    return path


def test_a_table_shows_every_figure_and_the_fraction_of_the_matrix_product(report: Path) -> None:
    case = json.loads(report.read_text())["cases"][0]
    case["stages_ms"]["encoder"]["median"] = 20.0
    text = table(Case(case["model"], "tflite", "fp16", 1), case | {"gmac": {"encoder": 0.5}, "product_gmac_s": 100.0})
    for shown in (*STAGES, "load encoder", "first result", "everything", "peak memory"):
        assert shown in text
    (encoder,) = (line.split() for line in text.splitlines() if line.startswith("  encoder"))
    assert encoder[3:] == ["0.50", "25.0", "25%"]
    assert "fp32 matrix product: 100.0 GMAC/s" in text


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
        # The disc model has no matrix product: its stages are a fraction of 0.
        assert case["gmac"] == {"encoder": 0, "decoder": 0}
        assert case["product_gmac_s"] > 0.1


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
