"""Video: an object that moves is followed; files are whole; mistakes are said."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runtime import disc_model
from tests.runtime.test_cli import Ran
from tinysam.runtime import Segmenter, errors
from tinysam.runtime.manifest import Cleaning
from tinysam.runtime.masks.rle import Rle
from tinysam.runtime.prompts import ObjectPrompt
from tinysam.runtime.results import MaskRecord
from tinysam.runtime.video import Track, Tracker, _advance, inner_point

FRAMES, WIDTH, HEIGHT = 8, 96, 64


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A grey video in which nothing happens: the disc model answers to prompts only."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    for _ in range(FRAMES):
        writer.write(np.full((HEIGHT, WIDTH, 3), 118, np.uint8))
    writer.release()
    return path


def record(mask: np.ndarray) -> MaskRecord:
    return MaskRecord(Rle.encode(mask), 0.9, 0.9)


def square(x: int, side: int = 10) -> np.ndarray:
    mask = np.zeros((40, 60), np.bool_)
    mask[15 : 15 + side, x : x + side] = True
    return mask


def test_prompt_moves_with_the_mask() -> None:
    track = Track(ObjectPrompt(box=(10, 15, 20, 25)))
    for x in (12, 14, 17):
        _advance(track, record(square(x)))
        assert track.prompt.box == (x - 0.5, 14.5, x + 10.5, 25.5)
        ((px, py, label),) = track.prompt.points
        assert x < px < x + 10
        assert (py, label) == (20, 1)
        assert track.lost_frames == 0


def test_lost_object_is_asked_for_where_it_was_seen_last() -> None:
    track = Track(ObjectPrompt(box=(10, 15, 20, 25)))
    _advance(track, record(square(12)))
    known = track.prompt
    _advance(track, record(np.zeros((40, 60), np.bool_)))
    _advance(track, record(np.ones((40, 60), np.bool_)))
    assert (track.prompt, track.lost_frames) == (known, 2)
    _advance(track, record(square(13)))
    assert (track.prompt == known, track.lost_frames) == (False, 0)


def test_lasting_change_is_believed_after_a_while() -> None:
    track = Track(ObjectPrompt(box=(10, 15, 20, 25)))
    _advance(track, record(square(12, side=4)))
    for _ in range(7):
        _advance(track, record(square(12, side=20)))
    assert track.lost_frames == 0
    assert track.area == 400


@pytest.mark.parametrize("shape", ["ring", "corner", "line", "dot"])
def test_inner_point_lies_in_the_mask(shape: str) -> None:
    y, x = np.mgrid[:40, :60]
    mask = {
        "ring": (np.hypot(x - 30, y - 20) < 15) & (np.hypot(x - 30, y - 20) > 10),
        "corner": (x < 5) | (y > 36),
        "line": (y == 7) & (x > 3) & (x < 50),
        "dot": (y == 39) & (x == 59),
    }[shape]
    px, py, _ = inner_point(Rle.encode(mask))
    assert mask[int(py), int(px)]


def test_tracker_needs_a_prompt(segmenter: Segmenter) -> None:
    with pytest.raises(ValueError, match="give --point or --box"):
        Tracker(segmenter, [])


def test_disc_stays_where_it_was_put(segmenter: Segmenter) -> None:
    tracker = Tracker(segmenter, [ObjectPrompt(((30, 30, 1),))])
    centres = []
    for _ in range(5):
        (mask,) = tracker.step(Image.new("RGB", (WIDTH, HEIGHT), (118, 118, 118))).masks
        x, y, width, height = mask.bbox
        centres.append((x + width / 2, y + height / 2))
    assert np.abs(np.array(centres) - [30, 30]).max() < 3


def test_video_file_gives_an_overlay_video_and_tracks(
    clip: Path, disc_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import cv2

    monkeypatch.chdir(tmp_path)
    ran = Ran(
        (str(clip), "--model", str(disc_artifacts), "--point", "40,30", "--format", "overlay,json", "--frames", "6"),
        capfd,
    )
    assert (ran.code, ran.err) == (0, "")
    assert "6 frames" in ran.out
    capture = cv2.VideoCapture("out/clip.overlay.mp4")
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 6
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    lines = [json.loads(line) for line in Path("out/clip.tracks.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(6))
    for line in lines:
        (one,) = line["objects"]
        mask = Rle.from_coco((HEIGHT, WIDTH), one["segmentation"]["counts"]).decode()
        assert mask[30, 40]
    assert sorted(path.name for path in Path("out").iterdir()) == ["clip.overlay.mp4", "clip.tracks.jsonl"]


def test_masks_are_cleaned_unless_they_are_asked_for_raw(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model = disc_model.build(tmp_path / "model", cleaning=Cleaning(0.1, 0.1))
    exact = Segmenter.decode

    def decode_with_speck(*arguments: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        masks, iou = exact(*arguments, **options)
        masks[..., 0, 0] = 60
        return masks, iou

    monkeypatch.setattr(Segmenter, "decode", decode_with_speck)
    monkeypatch.chdir(tmp_path)
    common = (str(clip), "--model", str(model), "--point", "60,40", "--format", "json", "--frames", "1")
    speck = []
    for more in ((), ("--raw",)):
        assert Ran((*common, *more), capfd).code == 0
        line = json.loads(Path("out/clip.tracks.jsonl").read_text())
        mask = Rle.from_coco((HEIGHT, WIDTH), line["objects"][0]["segmentation"]["counts"]).decode()
        assert mask[40, 60]
        speck.append(bool(mask[1, 1]))
    assert speck == [False, True]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("CLIP",), errors.EXIT_FAILED, "give --point or --box"),
        (("CLIP", "--point", "200,1"), errors.EXIT_FAILED, "lies outside the image"),
        (("none.mp4", "--point", "1,1"), errors.EXIT_FAILED, "none.mp4: no such file"),
        (("TEXT", "--point", "1,1"), errors.EXIT_FAILED, "cannot be opened"),
        (("--camera", "77", "--point", "1,1"), errors.EXIT_FAILED, "camera 77: cannot be opened"),
    ],
)
def test_mistakes_are_said_in_one_line(
    clip: Path,
    disc_artifacts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("no video")
    names = {"CLIP": str(clip), "TEXT": str(tmp_path / "text.mp4")}
    ran = Ran((*(names.get(one, one) for one in arguments), "--model", str(disc_artifacts)), capfd)
    assert message in ran.error
    assert ran.code == code
    assert not list(Path("out").iterdir()) if Path("out").exists() else True


def test_without_opencv_the_extra_is_named(
    disc_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    ran = Ran((str(tmp_path / "clip.mp4"), "--model", str(disc_artifacts), "--point", "1,1"), capfd)
    assert "pip install tinysam-edge[video]" in ran.error
    assert ran.code == errors.EXIT_ENGINE
