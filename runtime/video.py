"""Videos and cameras: objects carried from frame to frame; files through OpenCV (`pip install tinysam-edge[video]`).

1. The prompts are those of the first frame. Each frame is segmented by itself.
2. The mask of one frame becomes the prompt of the next: a point well inside it and a slightly larger box.
3. A mask whose area changes too much is taken for a mistake, and the object asked for where it was seen last.
4. The overlay of every frame goes into the video, its masks, if they are asked for, into a line of the file beside it.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tinysam.runtime.atomic import open_atomically, replace_atomically
from tinysam.runtime.errors import EngineMissingError, ImageError, OutputError, PromptError
from tinysam.runtime.masks.rle import Rle
from tinysam.runtime.objects import segment
from tinysam.runtime.outputs import VIDEO_FORMATS
from tinysam.runtime.outputs.pictures import draw_overlay
from tinysam.runtime.process import quiet_native
from tinysam.runtime.prompts import Box, ObjectPrompt, Point
from tinysam.runtime.results import MaskRecord, Result
from tinysam.runtime.segmenter import Segmenter
from tinysam.runtime.sources import Source

BOX_MARGIN = 0.05
"""The next box is larger than the mask by this part of its sides, on each side: room to move."""
LARGEST_GROWTH = 2.5
"""A mask whose area grows or shrinks by more from one frame to the next is taken for a mistake."""
_DEFAULT_RATE = 25.0
"""Frames per second of the output where a camera does not tell its own."""


@dataclass
class Track:
    """One object."""

    prompt: ObjectPrompt
    """What to ask the next frame."""
    area: int | None = None
    """Pixels in the last frame in which it was seen."""
    lost_frames: int = 0
    """Frames since then."""


class Tracker:
    """Follows objects through frames, each of which is segmented by itself."""

    def __init__(self, segmenter: Segmenter, prompts: Sequence[ObjectPrompt], clean: bool = True) -> None:
        """`prompts`: one for each object, in pixels of the first frame. `clean`: as for `segment`.

        Raises:
            PromptError: no prompt.
        """
        if not prompts:
            raise PromptError("a video needs something to follow: give --point or --box in its first frame")
        self._segmenter, self._clean = segmenter, clean
        self.tracks = [Track(prompt) for prompt in prompts]

    def step(self, frame: Image.Image, name: str = "frame") -> Result:
        """Segments the next frame and moves the prompts; a lost object is asked for where it was seen last.

        Raises:
            PromptError: the first prompts do not fit the frame.
        """
        prompts = [track.prompt for track in self.tracks]
        result = segment(self._segmenter, frame, prompts, name=name, clean=self._clean, zoom_in=False)
        for track, mask in zip(self.tracks, result.masks, strict=True):
            _advance(track, mask)
        return result


def _advance(track: Track, mask: MaskRecord) -> None:
    if not mask.area or (track.area and not 1 / LARGEST_GROWTH < mask.area / track.area < LARGEST_GROWTH):
        track.lost_frames += 1
        # A change of area that lasts is accepted after five frames.
        track.area = None if track.lost_frames > 5 else track.area
        return
    track.area, track.lost_frames = mask.area, 0
    track.prompt = ObjectPrompt((inner_point(mask.rle),), _larger(mask.rle))


def inner_point(mask: Rle) -> Point:
    """A positive point well inside a mask: the middle of a long vertical run, of those the one nearest its centre."""
    column, top, bottom = mask.column_runs()
    x0, _, x1, _ = mask.box
    length = bottom - top
    off_centre = np.abs(column + 0.5 - (x0 + x1) / 2)
    best = int(np.where(length >= 0.8 * length.max(), off_centre, np.inf).argmin())
    return float(column[best]) + 0.5, float(top[best] + bottom[best]) / 2, 1


def _larger(mask: Rle) -> Box:
    x0, y0, x1, y1 = mask.box
    height, width = mask.size
    dx, dy = BOX_MARGIN * (x1 - x0), BOX_MARGIN * (y1 - y0)
    return max(0.0, x0 - dx), max(0.0, y0 - dy), min(float(width), x1 + dx), min(float(height), y1 + dy)


def run_video(source: Source, tracker: Tracker, folder: Path, with_masks: bool, limit: int | None) -> list[str]:
    """Follows objects through a video file or camera; returns the lines to print.

    Args:
        source: the video.
        tracker: of the objects.
        folder: of the results; it is made if need be.
        with_masks: see `follow`.
        limit: stop after so many frames.

    Raises:
        What `open_video` and `follow` raise.
    """
    target = folder / f"{source.stem}{VIDEO_FORMATS['overlay']}"
    start = time.perf_counter()
    with quiet_native(drop_all=True):
        capture = open_video(source.path if source.camera is None else source.camera)
        try:
            count = follow(capture, tracker, target, with_masks, limit)
        finally:
            capture.release()
    seconds = time.perf_counter() - start
    lines = [f"{source.path}: {count} frames, {count / seconds:.1f} frames per second", f"  {target}"]
    return [*lines, f"  {_tracks_path(target)}"] if with_masks else lines


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
        masks = files.enter_context(open_atomically(_tracks_path(target))) if with_masks else None
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


def _tracks_path(target: Path) -> Path:
    """The file of masks that belongs to an overlay video."""
    return target.with_name(target.name.removesuffix(VIDEO_FORMATS["overlay"]) + VIDEO_FORMATS["json"])


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
        with replace_atomically(target, target.suffix) as partial:
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
