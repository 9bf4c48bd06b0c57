"""On a device there is Python and the wheel with a model inside: numpy, Pillow and one engine, nothing else.

Each engine gets a fresh virtual environment without access to this one's packages, filled from a local wheelhouse.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.conftest import picture
from tinysam.device.bundle.wheel import build_wheel

ENGINES = {"onnx": "tflite", "tflite": "onnx"}
FORBIDDEN = {"torch", "tensorflow", "onnx", "opencv-python", "scipy", "scikit-image", "pycocotools", "tf-keras"}
DESK = {"export": "export", "calibrate": "export", "distill": "train", "eval": "eval"}
FIRST_MASK_S = 60


@pytest.fixture(scope="module")
def wheel(real_artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"), real_artifacts)


@pytest.fixture(scope="module", params=list(ENGINES))
def bare(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an environment's commands, and the one engine that it has; the first mask is timed."""
    engine: str = request.param
    folder = tmp_path_factory.mktemp(f"bare-{engine}")
    wanted = f"{wheel}[{engine}]"
    pip = [sys.executable, "-m", "pip"]
    fetched = _call([*pip, "download", "-q", "--only-binary=:all:", "-d", folder / "wheelhouse", wanted])
    if fetched.returncode:
        pytest.skip(f"pip cannot fetch {wheel.name}[{engine}] here: {fetched.stderr.strip().splitlines()[-1:]}")
    picture(200, 150).save(folder / "photo.png")
    started = time.monotonic()
    commands = folder / "venv" / "bin"
    offline = ["--no-index", "--find-links", folder / "wheelhouse"]
    for command in (
        [sys.executable, "-m", "venv", folder / "venv"],
        [commands / "python", "-m", "pip", "install", "-q", *offline, wanted],
        [commands / "tinysam-run", folder / "photo.png", "--point", "90,60", "--out", folder / "out"],
    ):
        done = _call(command, folder)
        assert done.returncode == 0, done.stderr
    assert (folder / "out" / "photo.overlay.jpg").is_file()
    assert time.monotonic() - started < FIRST_MASK_S
    return commands, engine


def _call(command: list[object], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    clean = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "VIRTUAL_ENV", "TINYSAM_MODEL")}
    clean["XDG_DATA_HOME"] = "/nonexistent"
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=folder, env=clean)


def test_one_engine_is_enough(bare: tuple[Path, str], tmp_path: Path) -> None:
    commands, engine = bare
    listed = _call([commands / "python", "-m", "pip", "list", "--format=json"])
    installed = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert not installed & FORBIDDEN
    picture(200, 150).save(tmp_path / "photo.png")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return _call([commands / "tinysam-run", "photo.png", *arguments], tmp_path)

    done = run("--box", "20,20,150,120", "--format", "overlay,mask,label,json,polygons,labelme,npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert f" {engine} " in done.stdout
    with np.load(tmp_path / "out" / "photo.npz") as arrays:
        assert arrays["masks"].shape == (1, 150, 200)
    assert run("--points-per-side", "4", "--backend", engine).returncode == 0
    bench = [commands / "tinysam-bench", "photo.png", "--repeats", "1", "--json", "report.json"]
    assert _call(bench, tmp_path).returncode == 0
    assert [case["backend"] for case in json.loads((tmp_path / "report.json").read_text())["cases"]] == [engine]
    other = run("--backend", ENGINES[engine])
    assert other.returncode == 4
    assert f"[{ENGINES[engine]}]" in other.stderr
    assert other.stderr.count("\n") == 1


def test_commands_of_the_desk_name_the_extra_that_is_missing(bare: tuple[Path, str]) -> None:
    commands, _ = bare
    for (name, extra), options in zip(DESK.items(), ([], ["--help"], ["--out", "x"], ["--help"]), strict=True):
        done = _call([commands / f"tinysam-{name}", *options])
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert f"tinysam-{name}: not installed: " in done.stderr and f"[{extra}]" in done.stderr
    for name in ("bundle", "arm-cost"):
        assert "usage: " in _call([commands / f"tinysam-{name}", "--help"]).stdout
