"""The command `tinysam-run`: what it writes, says and returns."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

from tests.runtime import disc_model
from tests.runtime.conftest import picture
from tinysam.runtime import cli
from tinysam.runtime.errors import PromptError
from tinysam.runtime.objects import group_prompts


@pytest.fixture(autouse=True)
def place(tmp_path: Path, disc_artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command runs in its own folder with the disc model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYSAM_MODEL", str(disc_artifacts))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


class Ran:
    """A finished command."""

    def __init__(self, arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
        old = signal.getsignal(signal.SIGTERM)
        try:
            self.code = cli.main(arguments)
        except SystemExit as exit_:
            self.code = int(str(exit_.code))
        finally:
            signal.signal(signal.SIGTERM, old)
        self.out, self.err = capfd.readouterr()

    @property
    def error(self) -> str:
        """The one error line."""
        lines = [line for line in self.err.splitlines() if "error:" in line]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


def masks_of(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        masks: np.ndarray = arrays["masks"]
    return masks


def test_point_gives_one_object_and_an_overlay(photo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ran = Ran((str(photo), "--point", "30,20", "--format", "overlay,npz", "--timing"), capfd)
    assert (ran.code, ran.err) == (0, "")
    assert "1 mask, disc-64 onnx int8" in ran.out
    for stage in ("decode image", "load encoder", "resize", "encoder", "decoder", "masks", "write"):
        assert re.search(rf"{stage} +\d+\.\d ms", ran.out)
    with Image.open("out/photo.overlay.jpg") as overlay:
        assert overlay.size == (60, 40)
    (mask,) = masks_of(Path("out/photo.npz"))
    assert mask[20, 30]
    assert not mask[0, 0]


def test_boxes_give_an_object_each(photo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ran = Ran((str(photo), "--box", "0,0,20,20", "--box", "40,20,60,40", "--format", "npz", "--out", "there"), capfd)
    assert ran.code == 0
    first, second = masks_of(Path("there/photo.npz"))
    assert first[10, 10]
    assert not first[30, 50]
    assert second[30, 50]
    assert not second[10, 10]


def test_without_prompts_everything_is_segmented(photo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ran = Ran((str(photo), "--format", "json,label"), capfd)
    assert (ran.code, ran.err) == (0, "")
    annotations = json.loads(Path("out/photo.coco.json").read_text())["annotations"]
    assert len(annotations) > 5
    grid = Ran((str(photo), "--format", "json", "--mode", "grid", "--pred-iou-thresh", "0.75"), capfd)
    assert grid.code == 0
    scores = [one["predicted_iou"] for one in json.loads(Path("out/photo.coco.json").read_text())["annotations"]]
    assert min(scores) > 0.75


def test_given_threshold_is_obeyed_and_an_empty_result_is_said(photo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ran = Ran((str(photo), "--pred-iou-thresh", "1", "--format", "json"), capfd)
    assert ran.code == 0
    assert "note: no mask reached predicted IoU 1.00" in ran.err
    assert json.loads(Path("out/photo.coco.json").read_text())["annotations"] == []


def test_exif_orientation_turns_photo_and_prompts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    upright = picture(60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert Ran((str(tmp_path / "turned.png"), "--point", "55,35", "--format", "npz"), capfd).code == 0
    (mask,) = masks_of(Path("out/turned.npz"))
    assert mask.shape == (40, 60)
    assert mask[35, 55]


def test_folder_with_failures_does_the_rest_and_counts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    picture(seed=1).save(folder / "a.jpg")
    picture(seed=2).save(folder / "b.png")
    (folder / "c.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("not looked at")
    ran = Ran((str(folder), "--point", "9,9"), capfd)
    assert ran.code == cli.EXIT_FAILED
    assert "c.jpg: empty file" in ran.err
    assert "1 of 3 pictures failed" in ran.err
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.overlay.jpg", "b.overlay.jpg"]


def test_pattern_and_names_that_clash(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        picture().save(tmp_path / folder / "a.jpg")
    picture().save(tmp_path / "one" / "a.png")
    assert Ran(("one/*", "two/*.jpg", "one/a.png", "--point", "9,9"), capfd).code == 0
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == ["a_jpg-2.overlay.jpg", "a_jpg.overlay.jpg", "a_png.overlay.jpg"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), cli.EXIT_USAGE, "no picture given"),
        (("none.jpg",), cli.EXIT_FAILED, "none.jpg: no such file"),
        (("*.none",), cli.EXIT_USAGE, "no file matches"),
        (("PHOTO", "--point", "1"), cli.EXIT_USAGE, "expected X,Y or X,Y,LABEL"),
        (("PHOTO", "--point", "1,2,3"), cli.EXIT_USAGE, "LABEL 1 (object) or 0"),
        (("PHOTO", "--point", "nan,2"), cli.EXIT_USAGE, "finite"),
        (("PHOTO", "--point", "a,b"), cli.EXIT_USAGE, "numbers separated by commas"),
        (("PHOTO", "--point", "61,2"), cli.EXIT_FAILED, "point (61, 2) lies outside the image"),
        (("PHOTO", "--box", "5,5,5,9"), cli.EXIT_USAGE, "X1 must exceed X0"),
        (("PHOTO", "--box", "1,2,3"), cli.EXIT_USAGE, "expected X0,Y0,X1,Y1"),
        (("PHOTO", "--box", "70,0,80,9"), cli.EXIT_FAILED, "lies outside the image, which is 60 wide"),
        (
            ("PHOTO", "--box", "1,1,9,9", "--box", "20,20,30,30", "--point", "50,5"),
            cli.EXIT_USAGE,
            "none of the 2 boxes",
        ),
        (("PHOTO", "--format", "gif"), cli.EXIT_USAGE, "'gif': expected some of overlay, mask"),
        (("PHOTO", "--threads", "0"), cli.EXIT_USAGE, "whole number from 1"),
        (("PHOTO", "--pred-iou-thresh", "2"), cli.EXIT_USAGE, "from 0 to 1"),
        (("PHOTO", "--model", "nowhere"), cli.EXIT_ARTIFACTS, "no model at nowhere"),
        (("PHOTO", "--backend", "tflite"), cli.EXIT_ARTIFACTS, "has no encoder for backend tflite"),
        (("PHOTO", "--max-pixels", "2399"), cli.EXIT_FAILED, "60 x 40 pixels, the limit is 2399"),
    ],
)
def test_one_line_and_an_exit_code_for_every_mistake(
    photo: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    if "tflite" in arguments:
        pytest.importorskip("ai_edge_litert")
    ran = Ran(tuple(str(photo) if argument == "PHOTO" else argument for argument in arguments), capfd)
    assert message in ran.error
    assert ran.code == code
    assert not Path("out").exists()


def test_damaged_artifacts_and_unwritable_output(
    photo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = disc_model.build(tmp_path)
    data = (folder / "decoder.int8.onnx").read_bytes()
    (folder / "decoder.int8.onnx").write_bytes(data[:-1] + b"\0")
    ran = Ran((str(photo), str(photo), "--model", str(folder), "--point", "5,5"), capfd)
    assert "damaged" in ran.error
    assert ran.code == cli.EXIT_ARTIFACTS
    Path("out").write_text("a file is in the way")
    ran = Ran((str(photo), "--point", "5,5"), capfd)
    assert "cannot write out" in ran.error
    assert ran.code == cli.EXIT_OUTPUT


def test_missing_engine(photo: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysam.runtime.engines.formats.find_spec", lambda name: None)
    ran = Ran((str(photo), "--point", "5,5"), capfd)
    assert "pip install tinysam-edge[onnx]" in ran.error
    assert ran.code == cli.EXIT_ENGINE


def test_standard_input_through_a_pipe(photo: Path, disc_artifacts: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tinysam.runtime.cli", "-", "--point", "9,9"],
        input=photo.read_bytes(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert Path("out/stdin.overlay.jpg").is_file()


def test_help_imports_neither_numpy_nor_an_engine() -> None:
    code = (
        "import sys\n"
        "from tinysam.runtime.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n"
        "    print(sorted({'numpy', 'PIL', 'onnxruntime', 'ai_edge_litert'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "exit codes:" in done.stdout


def test_two_processes_on_the_same_artifacts_and_folder(photo: Path) -> None:
    command = [sys.executable, "-m", "tinysam.runtime.cli", str(photo), "--format", "npz,overlay"]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert sorted(path.name for path in Path("out").iterdir()) == ["photo.npz", "photo.overlay.jpg"]
    assert masks_of(Path("out/photo.npz")).any()


def test_interrupt_that_comes_back_as_another_error(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> NoReturn:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as cause:
            raise OSError("broken data stream") from cause

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("tinysam.runtime.command.run_one", interrupted)
    try:
        assert cli.main([str(photo)]) == cli.EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert capsys.readouterr().err == "tinysam-run: error: interrupted\n"


def _heed_signals() -> None:
    """A shell that starts tests in the background lets them, and their children, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_run_leaves_whole_files_only(tmp_path: Path, signal_number: int) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(40):
        picture(seed=index).save(folder / f"{index}.png")
    command = [sys.executable, "-m", "tinysam.runtime.cli", str(folder), "--format", "npz"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=_heed_signals)
    deadline = time.monotonic() + 60
    while not (Path("out").is_dir() and any(Path("out").glob("*.npz"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal_number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (cli.EXIT_INTERRUPTED, b"tinysam-run: error: interrupted\n")
    written = list(Path("out").iterdir())
    assert 0 < len(written) < 40
    for path in written:
        assert masks_of(path).any()


def test_killed_process_leaves_no_file_under_a_final_name_that_is_not_whole(photo: Path) -> None:
    """SIGKILL cannot be caught: at most a hidden partial file stays."""
    process = subprocess.Popen([sys.executable, "-m", "tinysam.runtime.cli", str(photo), "--format", "npz"])
    time.sleep(0.4)
    process.kill()
    process.wait()
    for path in Path("out").glob("*") if Path("out").exists() else []:
        assert path.name.startswith(".") or masks_of(path).any()


def test_closed_pipe_ends_quietly(photo: Path) -> None:
    command = f"{sys.executable} -m tinysam.runtime.cli {photo} --point 9,9 --timing | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_grouping_of_prompts() -> None:
    left, right = (0.0, 0.0, 10.0, 10.0), (5.0, 0.0, 20.0, 10.0)
    assert group_prompts([], []) == []
    (one,) = group_prompts([(1, 1, 1), (2, 2, 0)], [])
    assert (len(one.points), one.box) == (2, None)
    (one,) = group_prompts([(99, 99, 0)], [left])
    assert (one.points, one.box) == (((99, 99, 0),), left)
    first, second = group_prompts([(7, 5, 1), (15, 5, 0)], [left, right])
    assert first.points == ((7, 5, 1),)
    assert second.points == ((7, 5, 1), (15, 5, 0))
    with pytest.raises(PromptError, match="none of the 2 boxes"):
        group_prompts([(50, 5, 1)], [left, right])
