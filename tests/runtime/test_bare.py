"""On a device there is Python, numpy, Pillow and one engine: nothing else may be needed.

Each engine gets a fresh virtual environment without access to this one's packages.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.conftest import REPOSITORY, picture

ENGINES = {"onnx": "tflite", "tflite": "onnx"}
FORBIDDEN = {"torch", "tensorflow", "onnx", "opencv-python", "scipy", "scikit-image", "pycocotools", "tf-keras"}
_NOT_SOURCE = shutil.ignore_patterns(".*", "artifacts", "out", "build", "dist", "*.egg-info", "__pycache__", "tests")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project: building it leaves files behind."""
    copy = tmp_path_factory.mktemp("source") / "project"
    shutil.copytree(REPOSITORY, copy, ignore=_NOT_SOURCE)
    return copy


@pytest.fixture(scope="module", params=list(ENGINES))
def bare(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an environment's commands, and the one engine that it has."""
    engine: str = request.param
    folder = tmp_path_factory.mktemp(f"bare-{engine}")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "-q", f"{source}[{engine}]"]
    done = subprocess.run(install, capture_output=True, text=True, check=False, env=_clean())
    if done.returncode:
        pytest.skip(f"pip cannot install tinysam-edge[{engine}] here: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "bin", engine


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def test_one_engine_is_enough(bare: tuple[Path, str], real_artifacts: Path, tmp_path: Path) -> None:
    commands, engine = bare
    listed = subprocess.run(
        [commands / "python", "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    )
    installed = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert not installed & FORBIDDEN
    picture(200, 150).save(tmp_path / "photo.png")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [commands / "tinysam-run", tmp_path / "photo.png", "--model", real_artifacts, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=_clean())

    done = run("--box", "20,20,150,120", "--format", "overlay,mask,label,json,polygons,labelme,npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert f" {engine} " in done.stdout
    with np.load(tmp_path / "out" / "photo.npz") as arrays:
        assert arrays["masks"].shape == (1, 150, 200)
    assert run("--points-per-side", "4", "--backend", engine).returncode == 0
    bench = [commands / "tinysam-bench", tmp_path / "photo.png", "--model", real_artifacts, "--repeats", "1"]
    report = ["--precision", "fp32", "--json", tmp_path / "report.json"]
    subprocess.run([*bench, *report], check=True, env=_clean(), stdout=subprocess.DEVNULL)
    assert [case["backend"] for case in json.loads((tmp_path / "report.json").read_text())["cases"]] == [engine]
    other = run("--backend", ENGINES[engine])
    assert other.returncode == 4
    assert f"pip install tinysam-edge[{ENGINES[engine]}]" in other.stderr
    assert other.stderr.count("\n") == 1
