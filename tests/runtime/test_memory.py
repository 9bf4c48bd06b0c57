"""Memory on a large photograph, with real limits. A Pi Zero 2 W has 512 MB."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.conftest import picture
from tinysam.runtime import read_manifest

MEGABYTE = 1 << 20
LIMIT_BYTES = 512 * MEGABYTE
PEAK_MB = {"point": 220, "everything": 400}
"""nano INT8 on 12 megapixels: with a prompt, and for everything, which holds photograph and model at once."""
JOBS = {
    "point": ["--point", "2000,1500"],
    "everything": ["--points-per-side", "8", "--pred-iou-thresh", "0.3", "--stability-score-thresh", "0.5"],
}


@pytest.fixture(scope="module")
def large_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG of 4032 x 3024 pixels."""
    path = tmp_path_factory.mktemp("large") / "large.jpg"
    picture(4032, 3024).save(path, quality=85)
    return path


def int8_engines(folder: Path) -> set[str]:
    return {file.engine for file in read_manifest(folder).files if file.precision == "int8"}


# The peak that Linux reports for a process includes that of the process it was forked from: a small one has to fork it.
_LAUNCHER = """
import os, resource, sys
limit = int(sys.argv[1])
child = os.fork()
if not child:
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    os.dup2(2, 1)
    os.execv(sys.executable, [sys.executable, "-m", "tinysam.runtime.cli", *sys.argv[2:]])
_, status, usage = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""


def run(photo: Path, model: Path, arguments: list[str], limit_bytes: int) -> tuple[int, float, str]:
    """Exit code, peak resident memory in MB and output of tinysam-run with a limit on its private memory."""
    command = [str(photo), "--model", str(model), "--threads", "2", "--quiet", *arguments]
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, str(limit_bytes), *command],
        capture_output=True,
        text=True,
        check=True,
        cwd=photo.parent,
    )
    code, peak_kb = map(int, done.stdout.split())
    return code, peak_kb / 1024, done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and peaks are measured as Linux counts them")
@pytest.mark.parametrize("engine", ["onnx", "tflite"])
@pytest.mark.parametrize("job", list(JOBS))
def test_12_megapixels_fit_into_512_mb(large_photo: Path, real_artifacts: Path, engine: str, job: str) -> None:
    if engine not in int8_engines(real_artifacts):
        pytest.skip(f"the artifacts hold no {engine} int8 files")
    arguments = ["--backend", engine, "--precision", "int8", *JOBS[job]]
    code, peak_mb, message = run(large_photo, real_artifacts, arguments, LIMIT_BYTES)
    assert code == 0, message
    assert peak_mb < PEAK_MB[job]


def test_too_little_memory_is_one_line_not_a_traceback(large_photo: Path, real_artifacts: Path) -> None:
    """The limit is real: with much less the run fails, and says so."""
    code, _, message = run(large_photo, real_artifacts, ["--precision", "fp32", "--point", "9,9"], 100 * MEGABYTE)
    assert code != 0
    assert "Traceback" not in message
