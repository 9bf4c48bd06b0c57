"""Objects carried from frame to frame: the mask of one frame becomes the prompt of the next."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tinysam.runtime.errors import PromptError
from tinysam.runtime.masks.rle import Rle
from tinysam.runtime.objects import Box, ObjectPrompt, Point, segment
from tinysam.runtime.results import MaskRecord, Result
from tinysam.runtime.segmenter import Segmenter

BOX_MARGIN = 0.05
"""The next box is larger than the mask by this part of its sides, on each side: room to move."""
LARGEST_GROWTH = 2.5
"""A mask whose area grows or shrinks by more from one frame to the next is taken for a mistake."""


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

    def __init__(self, segmenter: Segmenter, prompts: Sequence[ObjectPrompt]) -> None:
        """`prompts`: one for each object, in pixels of the first frame.

        Raises:
            PromptError: no prompt.
        """
        if not prompts:
            raise PromptError("a video needs something to follow: give --point or --box in its first frame")
        self._segmenter = segmenter
        self.tracks = [Track(prompt) for prompt in prompts]

    def step(self, frame: Image.Image, name: str = "frame") -> Result:
        """Segments the next frame and moves the prompts; a lost object is asked for where it was seen last.

        Raises:
            PromptError: the first prompts do not fit the frame.
        """
        result = segment(self._segmenter, frame, [track.prompt for track in self.tracks], name=name)
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
