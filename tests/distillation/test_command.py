import sys

import pytest
import torch

from tinysam.distillation import cli


@pytest.fixture(autouse=True)
def keep_denormals():
    yield
    torch.set_flush_denormal(False)


def distill(monkeypatch, *arguments: object) -> int:
    options = ["tinysam-distill", "--threads", "1", "--workers", "0", "--device", "cpu", "--image-size", "224"]
    monkeypatch.setattr(sys, "argv", [*options, *map(str, arguments)])
    return cli.main()


SHORT = ["--steps", 2, "--decay-steps", 1, "--batch", 1, "--prompts", 1, "--rounds", 0, "--log-every", 1]


def test_every_mode_trains_from_the_command_line(drawn, tmp_path, monkeypatch, capsys):
    teacher = ["--teacher", "nano", "--precision", "fp32"]
    cache = ["--teacher-cache", tmp_path / "cache", "--no-augmented"]
    assert distill(monkeypatch, "--data", drawn, "--out", tmp_path / "a", *SHORT) == 0
    assert distill(monkeypatch, "--data", drawn, "--out", tmp_path / "b", *SHORT, "--mode", "full-stage", *teacher) == 0
    decoupled = ["--mode", "decoupled", *teacher, *cache]
    assert distill(monkeypatch, "--data", drawn, "--out", tmp_path / "c", *SHORT, *decoupled) == 0
    assert distill(monkeypatch, "--data", drawn, "--out", tmp_path / "d", *SHORT, *decoupled, "--resident") == 0
    assert distill(monkeypatch, "--data", drawn, "--out", tmp_path / "e", *SHORT, "--fake-quantization") == 0
    weights = {run: (tmp_path / run / "weights.safetensors").read_bytes() for run in "abcde"}
    assert weights["c"] == weights["d"]
    assert len(set(weights.values())) == 4
    assert list((tmp_path / "cache").glob("*.npy"))


def test_resume_of_a_finished_run_does_nothing_and_a_longer_one_goes_on(drawn, tmp_path, monkeypatch):
    run = ["--data", drawn, "--out", tmp_path / "run", "--resume", *SHORT]
    assert distill(monkeypatch, *run) == 0
    before = (tmp_path / "run/weights.safetensors").read_bytes()
    assert distill(monkeypatch, *run) == 0
    assert (tmp_path / "run/weights.safetensors").read_bytes() == before
    assert distill(monkeypatch, *run, "--steps", 3) == 0
    assert (tmp_path / "run/weights.safetensors").read_bytes() != before
    assert distill(monkeypatch, *run, "--seed", 9) == 1


def test_a_run_is_not_overwritten(drawn, tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoint.pt").write_bytes(b"hours of work")
    assert distill(monkeypatch, "--data", drawn, "--out", tmp_path / "run", *SHORT) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert (tmp_path / "run/checkpoint.pt").read_bytes() == b"hours of work"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: cannot be read"),
        (["--shards", "nowhere"], "no .tar shards"),
        (["--mode", "full-stage"], "needs a teacher"),
        (["--mode", "decoupled", "--teacher", "sam_vit_b"], "64 x 64, the student at 224"),
        (["--teacher-cache", "cache"], "use --mode decoupled and --no-augmented"),
        (["--resident", "--mode", "decoupled"], "use --mode decoupled and --no-augmented"),
        (["--start", "nowhere.pth"], "nowhere.pth: no such file"),
        (["--variant", "huge"], "unknown variant 'huge'"),
        (["--box-share", "2"], "expected 0 to 1"),
        (["--backgrounds", "nowhere"], "nowhere: no pictures"),
        (["--log-every", "0"], "--log-every 0: expected at least 1"),
        (["--device", "cuda"], "device cuda: no GPU that PyTorch can use"),
    ],
)
def test_bad_input_ends_with_one_line(drawn, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = [] if {"--data", "--shards"} & set(arguments) else ["--data", drawn]
    assert distill(monkeypatch, *data, "--out", tmp_path / "out", *SHORT, *arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_error_in_a_worker_is_told_in_one_line(drawn, tmp_path, monkeypatch, capsys):
    for picture in (drawn / "images").iterdir():
        picture.unlink()
    options = ["--workers", "1", "--skip-limit", "2"]
    assert distill(monkeypatch, "--data", drawn, "--out", tmp_path / "out", *SHORT, *options) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tinysam-distill:")]
    assert "more than 2 damaged shards or photographs, the last: " in line
