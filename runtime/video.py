"""Video files and cameras, through OpenCV (`pip install tinysam-edge[video]`)."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tinysam.runtime.atomic import replaced
from tinysam.runtime.errors import EngineMissingError, ImageError, OutputError
from tinysam.runtime.outputs.atomic import replacing
from tinysam.runtime.outputs.overlay import draw_overlay
from tinysam.runtime.results import Result
from tinysam.runtime.tracking import Tracker

_DEFAULT_RATE = 25.0
"""Frames per second of the output where a camera does not tell its own."""


def open_video(source: str | int) -> Any:
    """An OpenCV capture of a file, or of the camera of that number.

    Raises:
        EngineMissingError: OpenCV is not installed.
        FileNotFoundError, ImageError: there is no such file, or it cannot be read.
    """
    cv2 = _opencv()
    if isinstance(source, str) and not Path(source).is_file():
        raise FileNotFoundError(f"{source}: no such file; expected a video")
    capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        what = f"camera {source}" if isinstance(source, int) else source
        raise ImageError(f"{what}: cannot be opened; expected a working camera or a whole video file")
    return capture


def frames(capture: Any, limit: int | None) -> Iterator[Image.Image]:
    """Upright RGB frames, at most `limit`."""
    cv2 = _opencv()
    count = 0
    while limit is None or count < limit:
        good, frame = capture.read()
        if not good:
            return
        count += 1
        yield Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def follow(capture: Any, tracker: Tracker, target: Path, with_masks: bool, limit: int | None) -> int:
    """Writes `target` (.mp4) with the overlay of every frame; returns the number of frames.

    With `with_masks` it also writes `.tracks.jsonl` beside it: a line for each frame with COCO run lengths.
    An interruption ends the video where it is; both files are complete.

    Raises:
        PromptError: the first prompts do not fit the frame.
        OutputError: a file cannot be written.
    """
    cv2 = _opencv()
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 1 <= rate <= 1000 else _DEFAULT_RATE
    count = 0
    with ExitStack() as files:
        start, write = files.enter_context(_writer(target))
        masks = files.enter_context(replacing(tracks_path(target))) if with_masks else None
        with suppress(KeyboardInterrupt):
            for picture in frames(capture, limit):
                result = tracker.step(picture, f"frame {count}")
                if masks:
                    masks.write(_line(count, count / rate, result, tracker).encode())
                draw_overlay(picture, result)
                if count == 0:
                    start(rate, picture.size)
                write(cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR))
                count += 1
        if not count:
            raise ImageError("no frame could be read from the video; expected a whole video file")
    return count


def tracks_path(target: Path) -> Path:
    """The file of masks that belongs to an overlay video."""
    return target.with_name(target.name.replace(".overlay.mp4", ".tracks.jsonl"))


def _line(number: int, seconds: float, result: Result, tracker: Tracker) -> str:
    objects = [
        {
            "segmentation": {"size": list(mask.rle.size), "counts": mask.rle.to_coco()},
            "bbox": list(mask.bbox),
            "predicted_iou": round(mask.predicted_iou, 6),
            "lost_frames": track.lost_frames,
        }
        for mask, track in zip(result.masks, tracker.tracks, strict=True)
    ]
    return json.dumps({"frame": number, "seconds": round(seconds, 4), "objects": objects}) + "\n"


@contextmanager
def _writer(target: Path) -> Iterator[Any]:
    """Two calls, to start a video of (rate, size) and to add a frame; `target` appears when all went well."""
    cv2 = _opencv()
    writer = cv2.VideoWriter()

    def start(rate: float, size: tuple[int, int]) -> None:
        if not writer.open(str(partial), cv2.VideoWriter.fourcc(*"mp4v"), rate, size):
            raise OutputError(f"cannot write {target}: OpenCV has no encoder for it, or the folder is not writable")

    try:
        with replaced(target, target.suffix) as partial:
            try:
                yield start, writer.write
            finally:
                writer.release()
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise EngineMissingError(f"video needs OpenCV ({error}): pip install tinysam-edge[video]") from error
    return cv2
