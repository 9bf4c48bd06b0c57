"""The command `tinysam-run`: what it writes, says and returns."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

from tests.runtime import disc_model
from tests.runtime.conftest import picture
from tests.runtime.test_samples import wide_gamut
from tinysam.runtime import cli, command, desk, errors
from tinysam.runtime.errors import PromptError
from tinysam.runtime.manifest import read_manifest, write_manifest
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


def test_the_only_large_picture_is_decoded_twice_and_gives_the_same(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture: the model is not held beside it. Two pictures: it is."""
    for name in ("a", "b"):
        picture(2400, 1700).save(tmp_path / f"{name}.jpg", quality=80)
    decoded: list[str] = []
    load = command.load_image
    monkeypatch.setattr(command, "load_image", lambda path, limit: decoded.append(Path(path).name) or load(path, limit))
    prompt = ("--point", "1200,800", "--format", "overlay,npz")
    assert Ran(("a.jpg", *prompt, "--out", "one"), capfd).code == 0
    assert Ran(("a.jpg", "b.jpg", *prompt, "--out", "two"), capfd).code == 0
    assert decoded == ["a.jpg", "a.jpg", "a.jpg", "b.jpg"]
    for name in ("a.overlay.jpg", "a.npz"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


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
    assert ran.code == errors.EXIT_FAILED
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
        ((), errors.EXIT_USAGE, "no picture given"),
        (("none.jpg",), errors.EXIT_FAILED, "none.jpg: no such file"),
        (("*.none",), errors.EXIT_USAGE, "no file matches"),
        (("PHOTO", "--point", "1"), errors.EXIT_USAGE, "expected X,Y or X,Y,LABEL"),
        (("PHOTO", "--point", "1,2,3"), errors.EXIT_USAGE, "LABEL 1 (object) or 0"),
        (("PHOTO", "--point", "nan,2"), errors.EXIT_USAGE, "finite"),
        (("PHOTO", "--point", "a,b"), errors.EXIT_USAGE, "numbers separated by commas"),
        (("PHOTO", "--point", "61,2"), errors.EXIT_FAILED, "point (61, 2) lies outside the image"),
        (("PHOTO", "--box", "5,5,5,9"), errors.EXIT_USAGE, "X1 must exceed X0"),
        (("PHOTO", "--box", "1,2,3"), errors.EXIT_USAGE, "expected X0,Y0,X1,Y1"),
        (("PHOTO", "--box", "70,0,80,9"), errors.EXIT_FAILED, "lies outside the image, which is 60 wide"),
        (
            ("PHOTO", "--box", "1,1,9,9", "--box", "20,20,30,30", "--point", "50,5"),
            errors.EXIT_USAGE,
            "none of the 2 boxes",
        ),
        (("PHOTO", "--format", "gif"), errors.EXIT_USAGE, "'gif': expected some of overlay, mask"),
        (("PHOTO", "--threads", "0"), errors.EXIT_USAGE, "whole number from 1"),
        (("PHOTO", "--pred-iou-thresh", "2"), errors.EXIT_USAGE, "from 0 to 1"),
        (("PHOTO", "--model", "nowhere"), errors.EXIT_ARTIFACTS, "no model at nowhere"),
        (("PHOTO", "--backend", "tflite"), errors.EXIT_ARTIFACTS, "has no encoder for backend tflite"),
        (("PHOTO", "--max-pixels", "2399"), errors.EXIT_FAILED, "60 x 40 pixels, the limit is 2399"),
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
    assert ran.code == errors.EXIT_ARTIFACTS
    Path("out").write_text("a file is in the way")
    ran = Ran((str(photo), "--point", "5,5"), capfd)
    assert "cannot write out" in ran.error
    assert ran.code == errors.EXIT_OUTPUT


def test_missing_engine(photo: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysam.runtime.engines.formats.find_spec", lambda name: None)
    ran = Ran((str(photo), "--point", "5,5"), capfd)
    assert "pip install tinysam-edge[onnx]" in ran.error
    assert ran.code == errors.EXIT_ENGINE


def test_standard_input_through_a_pipe(photo: Path, disc_artifacts: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tinysam.runtime.cli", "-", "--point", "9,9"],
        input=photo.read_bytes(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert Path("out/stdin.overlay.jpg").is_file()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["photo.jpg", "--point", "nonsense"]])
def test_what_needs_no_model_imports_the_standard_library_alone(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from tinysam.runtime.cli import main\n"
        f"try:\n    main({arguments})\n"
        "except SystemExit:\n"
        "    tops = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "    print(sorted(tops - set(sys.stdlib_module_names)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['tinysam']"
    assert ("exit codes:" in done.stdout) == (arguments == ["--help"])


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted by Linux's /proc")
def test_a_click_starts_no_thread_but_the_engines_and_loads_nothing_of_segment_everything(photo: Path) -> None:
    code = (
        "import gc, os, sys\n"
        "from tinysam.runtime.cli import main\n"
        f"assert main([{str(photo)!r}, '--point', '30,20', '--threads', '1', '--backend', 'onnx', '--quiet']) == 0\n"
        "print(len(os.listdir('/proc/self/task')), gc.isenabled())\n"
        "print('tinysam.runtime.everything.generator' in sys.modules)\n"
    )
    clean = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean)
    assert done.stdout.split() == ["1", "True", "False"]


def test_two_processes_on_the_same_artifacts_and_folder(photo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "tinysam.runtime.cli", str(photo), "--format", "npz,overlay"]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert sorted(path.name for path in Path("out").iterdir()) == ["photo.npz", "photo.overlay.jpg"]
    assert Ran((str(photo), "--format", "npz", "--out", "alone"), capfd).code == 0
    np.testing.assert_array_equal(masks_of(Path("out/photo.npz")), masks_of(Path("alone/photo.npz")))


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
        assert cli.main([str(photo)]) == errors.EXIT_INTERRUPTED
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
    assert process.returncode == errors.EXIT_INTERRUPTED
    assert err == b"tinysam-run: error: interrupted; the same command with --skip-existing does the rest\n"
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


@pytest.mark.parametrize(
    ("arguments", "box"),
    [
        (("--box", "-10,-10,50,50"), [-10, -10, 50, 50]),
        (("--box=-10,-10,50,50",), [-10, -10, 50, 50]),
        (("--box", "-.5, -1e1; 50 50"), [-0.5, -10, 50, 50]),
        (("--box", "[5, 6, 50, 30]"), [5, 6, 50, 30]),
        (("--box", "5 6 50 30", "--mode", "Grid", "--precision", "INT8", "--backend", "ONNX"), [5, 6, 50, 30]),
    ],
)
def test_lists_as_people_type_them(
    photo: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], box: list[float]
) -> None:
    ran = Ran((str(photo), *arguments, "--format", "JSON; NPZ"), capfd)
    assert (ran.code, ran.err) == (0, "")
    (annotation,) = json.loads(Path("out/photo.coco.json").read_text())["annotations"]
    assert annotation["box"] == box
    assert Path("out/photo.npz").is_file()


def test_point_with_a_negative_number_is_outside_not_an_option(photo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ran = Ran((str(photo), "--point", "-5,5"), capfd)
    assert ran.code == errors.EXIT_FAILED
    assert "point (-5, 5) lies outside the image" in ran.error


def test_version_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    ran = Ran(("--version",), capfd)
    assert ran.code == 0
    assert re.fullmatch(r"tinysam-run (\d+\.\d+\.\d+|\(not installed.*\))\n", ran.out)


@pytest.mark.parametrize("command", ["export", "calibrate", "distill", "evaluate"])
def test_commands_of_the_desk_tell_the_version_without_their_packages(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tinysam.runtime.desk.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["tinysam", "--version"])
    assert getattr(desk, command)() == 0
    assert re.fullmatch(
        r"tinysam-(export|calibrate|distill|eval) (\d+\.\d+\.\d+|\(not installed.*\))\n", capsys.readouterr().out
    )


def test_skip_existing_goes_on_where_a_run_has_ended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b", "c"):
        picture().save(folder / f"{name}.png")
    command = (str(folder), "--box", "5,5,30,30", "--format", "json,mask")
    assert Ran(command, capfd).code == 0
    Path("out/b.mask-001.png").unlink()
    kept = Path("out/a.coco.json").stat().st_mtime_ns
    ran = Ran((*command, "--skip-existing"), capfd)
    assert ran.code == 0
    assert re.findall(r"(\w)\.png: 1 mask,", ran.out) == ["b"]
    assert "2 of 3 pictures skipped: their results are there" in ran.out
    assert Path("out/a.coco.json").stat().st_mtime_ns == kept
    ran = Ran((*command, "--skip-existing", "--model", "nowhere"), capfd)  # nothing to do needs no model
    assert ran.code == 0
    assert "3 of 3 pictures skipped" in ran.out
    assert Ran((*command, "--format", "json,npz", "--skip-existing"), capfd).out.count(" 1 mask,") == 3


def test_files_passed_over_are_said_at_the_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    picture().save(folder / "a.png")
    (folder / "clip.mp4").write_bytes(b"x")
    ran = Ran((str(folder), "--point", "9,9"), capfd)
    assert ran.code == 0
    assert (
        ran.err
        == f"tinysam-run: {folder}: note: passed over: videos, which have to be named one by one (1): clip.mp4\n"
    )


@pytest.mark.parametrize("formats", ["mask", "overlay,npz", "labelme,json"])
def test_formats_that_a_video_does_not_have_are_refused(
    photo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], formats: str
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    ran = Ran((str(photo), str(tmp_path / "clip.mp4"), "--point", "9,9", "--format", formats), capfd)
    assert ran.code == errors.EXIT_USAGE
    assert "clip.mp4: a video has no results of format" in ran.error
    assert not Path("out").exists()


def test_one_odd_file_does_not_end_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    names = [
        "a.png",
        "line\nbreak.png",
        os.fsdecode(b"caf\xe9.png"),
        "\u6f22 \U0001f431.png",
        "x" * 250 + ".png",
        "z.png",
    ]
    for name in names:
        picture().save(folder / name)
    Path("out/a.coco.json/x").mkdir(parents=True)  # in the way of one result
    (folder / "loop.png").symlink_to("loop.png")
    ran = Ran((str(folder), str(folder / "loop.png"), "--point", "9,9", "--format", "json"), capfd)
    assert ran.code == errors.EXIT_OUTPUT
    assert ran.out.count(" 1 mask,") == len(names) - 1
    assert ran.out.count("\n") == 2 * (len(names) - 1)
    assert "a.coco.json: Is a directory" in ran.err
    assert "loop.png: cannot be read" in ran.err
    assert "2 of 7 pictures failed" in ran.err
    assert len([path for path in Path("out").iterdir() if path.is_file()]) == len(names) - 1


def test_surprise_in_one_picture_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinysam.runtime import command

    def surprising(source: str, max_pixels: int) -> object:
        if "a.png" in source:
            raise RecursionError("too deep\nindeed")
        return real(source, max_pixels)

    real = command.load_image
    monkeypatch.setattr(command, "load_image", surprising)
    for name in ("a.png", "b.png"):
        picture().save(tmp_path / name)
    ran = Ran(("a.png", "b.png", "--point", "9,9"), capfd)
    assert ran.code == errors.EXIT_FAILED
    assert "error: a.png: unexpected RecursionError: too deep indeed" in ran.err
    assert Path("out/b.overlay.jpg").is_file()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_closed_and_full_streams_leave_the_results_whole(photo: Path, closed: str) -> None:
    command = f"{sys.executable} -m tinysam.runtime.cli {photo} --point 9,9 --format npz {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == (errors.EXIT_OUTPUT if "full" in closed else 0)
    assert "Traceback" not in done.stderr
    assert masks_of(Path("out/photo.npz")).any()


def test_ascii_terminal_prints_any_name(tmp_path: Path) -> None:
    picture().save(tmp_path / "\u00e9.png")
    command = [sys.executable, "-m", "tinysam.runtime.cli", "\u00e9.png", "--point", "9,9"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("\\xe9.png: 1 mask")


def test_photographs_note_and_profile_reach_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0132], exif[0x010F] = 6, "2024:05:06 07:08:09", "maker"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    wide = wide_gamut()
    picture().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif, icc_profile=wide, quality=100)
    deep = Image.fromarray(np.linspace(0, 4095, 2400).reshape(40, 60).astype(np.uint16))
    deep.save(tmp_path / "b.png")
    ran = Ran(("a.jpg", "b.png", "--point", "50,30"), capfd)
    assert ran.code == 0
    assert ran.err == "tinysam-run: b.png: note: uint16 samples scaled to 8 bits: 0 is black, 4095 is white\n"
    with Image.open("out/a.overlay.jpg") as overlay:
        assert overlay.size == (60, 40)
        assert overlay.info["icc_profile"] == wide
        kept = overlay.getexif()
        assert (kept.get(0x0132), kept.get(0x0112), kept.get(0x010F)) == ("2024:05:06 07:08:09", None, None)
        assert kept.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
        drawn = np.asarray(overlay, np.float32)
    with Image.open("a.jpg") as stored:
        upright = np.asarray(stored.transpose(Image.Transpose.ROTATE_270), np.float32)
    assert np.abs(drawn[:, :15] - upright[:, :15]).mean() < 4  # far from the mask, in the photograph's own colours


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


def test_a_warning_of_the_manifest_is_repeated_once(
    tmp_path: Path, photo: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = disc_model.build(tmp_path / "warned")
    manifest = read_manifest(folder)
    warned = tuple(replace(file, quantization={"warning": "INT8 loses 3.00 points"}) for file in manifest.files)
    write_manifest(replace(manifest, files=warned), folder)
    monkeypatch.setenv("TINYSAM_MODEL", str(folder))
    ran = Ran((str(photo), "--point", "30,20", "--quiet"), capfd)
    assert ran.code == 0
    assert [line for line in ran.err.splitlines() if "warning" in line] == [
        "tinysam-run: warning: INT8 loses 3.00 points"
    ]
