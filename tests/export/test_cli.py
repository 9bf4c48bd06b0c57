"""`tinysam-export` on input that cannot work: one line, exit code 1, nothing written."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tinysam.export.cli import main
from tinysam.export.settings import code_sha256, imported_sources


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a failing command prints."""
    assert main(list(arguments)) == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("tinysam-export: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--variant", "sam3"], "unknown variant 'sam3': expected one of nano"),
        (["--variant", "sam_vit_h"], "sam_vit_h is a teacher"),
        (["--size", "500"], "image size 500: expected 1024 or a multiple of 224"),
        (["--precision", "int4"], "precision int4: expected fp32 or fp16 or int8"),
        (["--format", "coreml"], "format coreml: expected onnx or tflite"),
        (["--layout", "sam2"], "layout sam2: expected tinysam or sam"),
        (["--layout", "sam", "--format", "tflite"], "layout sam consists of ONNX files"),
        (["--layout", "sam", "--precision", "fp16"], "layout sam consists of ONNX files"),
        (["--least-mask-iou", "70"], "least mask IoU 70.0: expected 0 to 1"),
        (["--target", "riscv"], "target riscv: expected arm or x86"),
        (["--variant", "tinysam"], "tinysam has no embedded weights: give --checkpoint"),
        (["--checkpoint", "absent.pth"], "absent.pth: no such file"),
        (["--calib-dir", "absent/"], "calibration images absent: nothing found"),
    ],
)
def test_senseless_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], expected: str
) -> None:
    out = tmp_path / "artifacts"
    assert expected in failure(capsys, *arguments, "--out", str(out))
    assert not out.exists()


def test_a_checkpoint_of_another_architecture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    torch.save({"image_encoder.pos_embed": torch.zeros(1)}, tmp_path / "vit.pth")
    line = failure(capsys, "--checkpoint", str(tmp_path / "vit.pth"), "--out", str(tmp_path / "artifacts"))
    assert "is for another architecture" in line
    assert "image_encoder.pos_embed" in line


def test_a_terminated_export_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tinysam.export.cli", "--out", str(tmp_path / "artifacts")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("artifacts/.nano-448.*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.splitlines()[-1]) == (130, b"tinysam-export: interrupted, nothing was published")
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_help_needs_nothing_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert raised.value.code == 0
    assert "--calib-dir" in capsys.readouterr().out


def package(folder: Path, preprocess: str) -> None:
    """A package whose start imports modules in every way that this project does."""
    (folder / "runtime").mkdir(parents=True)
    texts = {
        "__init__.py": "",
        "start.py": "from pkg.runtime import preprocess\nfrom pkg.other import (\n    thing,\n)\n"
        + 'DRIVER = "pkg.driver"\n',
        "other.py": "thing = 1\n",
        "driver.py": "",
        "unrelated.py": "",
        "runtime/__init__.py": "",
        "runtime/preprocess.py": preprocess,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)


def test_the_code_of_every_imported_module_is_part_of_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path / "pkg", "side = 1\n")
    assert set(imported_sources("pkg.start")) == {
        *(f"pkg{name}" for name in ("", ".start", ".other", ".driver", ".runtime", ".runtime.preprocess"))
    }
    before = code_sha256("pkg.start")
    (tmp_path / "pkg" / "unrelated.py").write_text("x = 1\n")
    assert code_sha256("pkg.start") == before
    (tmp_path / "pkg" / "runtime" / "preprocess.py").write_text("side = 2\n")
    assert code_sha256("pkg.start") != before


def test_the_fingerprint_covers_models_calibration_and_what_the_runtime_does_to_pictures() -> None:
    found = set(imported_sources("tinysam.export.pipeline"))
    assert found >= {
        "tinysam.models.tinyvit",
        "tinysam.calibration.equalization",
        "tinysam.runtime.preprocess",
        "tinysam.runtime.prompts",
        "tinysam.runtime.engines.tflite",
    }
