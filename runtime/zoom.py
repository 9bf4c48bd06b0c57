"""Zoom-in: an object that is small on the photograph is looked at again, alone and larger.

The encoder sees every photograph at one size, so it sees little of a small object. A window around the object, encoded
by itself, shows more of it (Zoom-In of Sofiiuk et al. 2020, arXiv:2001.10331).

- A box says where its object is. Only the window is encoded: as much work as for the photograph.
- Clicks do not. The mask of a first look at the photograph gives the window, and goes there as mask prompt.

`Looks` gives the answer to a prompt; the manifest's `zoom_in` says how large windows are.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinysam.runtime import preprocess
from tinysam.runtime.geometry import LOW_RES_STRIDE, Frame
from tinysam.runtime.labels import POSITIVE
from tinysam.runtime.manifest import Manifest, ZoomIn
from tinysam.runtime.masks.boxes import original_boxes
from tinysam.runtime.masks.clean import clean_mask
from tinysam.runtime.masks.rle import Rle
from tinysam.runtime.prompts import BOX_LOGIT, ObjectPrompt, Point, check_boxes, check_point
from tinysam.runtime.results import add_times
from tinysam.runtime.segmenter import Segmenter
from tinysam.runtime.upscale import full_size_rle, interpolation_matrix

Floats = NDArray[np.float32]
Window = tuple[int, int, int, int]
"""x0, y0, x1, y1 of a part of the photograph."""

LARGEST_WINDOW = 0.8
"""Sides of windows above this part of the photograph's long side are not worth a look of their own."""
MOST_MAGNIFIED = 4
"""Pixels are enlarged at most so many times: beyond that windows show blur, and the model finds less in them."""
_COPY_SCALE = 6
"""Windows are cut from a copy of the photograph that is at most so many times as large as the model's input."""


@dataclass(frozen=True)
class Views:
    """What looks at a photograph need of it; less to hold than a large photograph is."""

    pixels: NDArray[np.uint8]
    """The photograph in the model's input, see `Segmenter.set_resized`."""
    copy: Image.Image | None
    """RGB, from which windows are cut; None: there is no looking closer."""
    factor: int
    """Pixels of the photograph per pixel of the copy, along each side."""
    frame: Frame
    """Of the photograph in the model."""
    resize_ms: float
    """How long it took to make these views."""

    @classmethod
    def of(cls, image: Image.Image, manifest: Manifest, zoom_in: bool) -> "Views":
        """Of an upright RGB photograph, for this model. Of a small photograph the copy is the photograph itself."""
        start = time.perf_counter()
        frame = Frame((image.height, image.width), manifest.image_size)
        pixels, copy = preprocess.resize(image, frame), None
        # By whole numbers: that takes no memory but the copy's, and little time.
        factor = -(-max(image.size) // (_COPY_SCALE * frame.image_size))
        if zoom_in and manifest.zoom_in != ZoomIn():
            copy = image.reduce(factor) if factor > 1 else image
        return cls(pixels, copy, factor, frame, 1e3 * (time.perf_counter() - start))

    @property
    def least_side(self) -> float:
        """Of windows, in pixels of the photograph."""
        return self.frame.image_size / MOST_MAGNIFIED * self.factor

    def window(self, window: Window) -> tuple[NDArray[np.uint8], Frame]:
        """The pixels of a window in the model's input, and its geometry."""
        assert self.copy is not None, "these views were made without zoom_in"
        x0, y0, x1, y1 = window
        frame = Frame((y1 - y0, x1 - x0), self.frame.image_size)
        left, upper, right, lower = (value / self.factor for value in window)
        return preprocess.resize(self.copy, frame, (left, upper, right, lower)), frame


@dataclass(frozen=True)
class Answer:
    """The mask of one object, where it was looked at."""

    low_res: Floats
    """(4 grid, 4 grid) logits."""
    predicted_iou: float
    frame: Frame
    """Of the window, or of the whole photograph."""
    window: Window | None = None
    """None: the whole photograph."""

    def rle(self, low_res: Floats, size: tuple[int, int]) -> Rle:
        """The mask of these logits, its own or its cleaned ones, in a photograph of `size` (height, width)."""
        x0, y0 = self.window[:2] if self.window else (0, 0)
        return full_size_rle(np.ascontiguousarray(low_res), self.frame.upscaler, size, offset=(x0, y0))


class Looks:
    """Looks at one photograph, as many as its prompts need."""

    def __init__(self, segmenter: Segmenter, views: Views | None = None, release: bool = False) -> None:
        """Prepares looks.

        Args:
            segmenter: holds the photograph already, if there are no views; else it forgets what it holds, and is given
                the photograph when a look at the whole is needed.
            views: of the photograph; None: there is no looking closer.
            release: whether encoder and decoder are never held at the same time: less memory, but both are loaded anew
                for every look.
        """
        if views:
            segmenter.reset_image()
        self._release = release
        self._whole, self._views, self._closer = segmenter, views, segmenter.clone()
        self.manifest = segmenter.manifest
        self.size = (views or segmenter).frame.original_size
        """(height, width) of the photograph."""
        self.timing_ms: dict[str, float] = {}
        """Stage -> time of all looks."""
        add_times(self.timing_ms, {"resize": views.resize_ms} if views else segmenter.timing_ms)

    @property
    def whole(self) -> Segmenter:
        """The segmenter that holds the whole photograph; the first call runs the encoder."""
        return self._at(None)

    def answer(self, prompt: ObjectPrompt) -> Answer:
        """The mask that a prompt gets.

        Raises:
            PromptError, EngineMissingError, ArtifactError: see `Segmenter.predict` and `Segmenter.set_image`.
        """
        prompt = self._inside(prompt)
        window = self._box_window(prompt)
        answer = self._ask(self._at(window), prompt, window)
        return answer if prompt.box else self.closer(prompt.points, answer)

    def closer(self, points: Sequence[Point], first: Answer) -> Answer:
        """The mask of clicks, from a window around the one that a look at the whole photograph gave.

        It is `first` itself where that is empty or fills the photograph. Its predicted IoU is the mean of both looks:
        the first knows how sure it is of the object, the closer one how well the mask fits it.
        """
        window = self._mask_window(points, first)
        if window is None:
            return first
        segmenter = self._at(window)
        mask = in_window(first.low_res, first.frame, window, segmenter.frame)
        answer = self._ask(segmenter, ObjectPrompt(tuple(points)), window, mask)
        height, width = answer.frame.low_res_size
        if not (answer.low_res[:height, :width] > 0).any():
            return first
        return replace(answer, predicted_iou=(first.predicted_iou + answer.predicted_iou) / 2)

    def cleaned(self, answer: Answer) -> Floats:
        """The logits of an answer without small islands and holes, by the manifest's `cleaning`."""
        return clean_mask(answer.low_res, self.manifest.cleaning, answer.frame.low_res_size)

    def _inside(self, prompt: ObjectPrompt) -> ObjectPrompt:
        """The prompt with its box cut off at the photograph's border; PromptError if it does not fit."""
        for point in prompt.points:
            check_point(point[:2], self.size)
        if prompt.box is None:
            return prompt
        x0, y0, x1, y1 = check_boxes([prompt.box], self.size)[0].tolist()
        return replace(prompt, box=(x0, y0, x1, y1))

    def _box_window(self, prompt: ObjectPrompt) -> Window | None:
        if prompt.box is None:
            return None
        corners = [prompt.box[:2], prompt.box[2:], *_positive(prompt.points)]
        return self._window(corners, self.manifest.zoom_in.box)

    def _mask_window(self, points: Sequence[Point], first: Answer) -> Window | None:
        if not self._can_zoom(self.manifest.zoom_in.mask):
            return None
        height, width = first.frame.low_res_size
        (box,) = original_boxes(self.cleaned(first)[None, :height, :width], first.frame)
        if np.isnan(box).any():
            return None
        return self._window([box[:2], box[2:], *_positive(points)], self.manifest.zoom_in.mask)

    def _window(self, points: Sequence[Sequence[float]], factor: float) -> Window | None:
        if self._views is None or not self._can_zoom(factor):
            return None
        return window_around(points, factor, self.size, self._views.least_side)

    def _can_zoom(self, factor: float) -> bool:
        return factor > 0 and self._views is not None and self._views.copy is not None

    def _at(self, window: Window | None) -> Segmenter:
        """The segmenter that holds a window, or the whole photograph; what it does not hold is encoded first."""
        if window is None and self._whole.is_image_set:
            return self._whole
        assert self._views is not None, "neither an image nor its views"
        segmenter = self._closer if window else self._whole
        start = time.perf_counter()
        pixels, frame = self._views.window(window) if window else (self._views.pixels, self._views.frame)
        add_times(self.timing_ms, {"resize": 1e3 * (time.perf_counter() - start)})
        self._free("decoder")
        segmenter.set_resized(pixels, frame.original_size)
        add_times(self.timing_ms, segmenter.timing_ms)
        return segmenter

    def _free(self, part: str) -> None:
        if self._release:
            self._whole.graphs.release(part)

    def _ask(
        self, segmenter: Segmenter, prompt: ObjectPrompt, window: Window | None, mask: Floats | None = None
    ) -> Answer:
        self._free("encoder")
        loaded_ms = segmenter.graphs.load("decoder")
        start = time.perf_counter()
        inside = _within(prompt, window) if window else prompt
        points = np.array(inside.points, np.float64).reshape(1, -1, 3)
        coords, labels = (points[..., :2], points[..., 2]) if inside.points else (None, None)
        prompts = segmenter.prompts(coords, labels, [inside.box] if inside.box else None, mask)
        masks, iou = segmenter.decode(prompts, multimask_output=None)
        add_times(self.timing_ms, {"load decoder": loaded_ms, "decoder": 1e3 * (time.perf_counter() - start)})
        return Answer(masks[0, 0], float(iou[0, 0]), segmenter.frame, window)


def window_around(
    points: Sequence[Sequence[float]], factor: float, size: tuple[int, int], least_side: float
) -> Window | None:
    """A square window around points (x, y), moved and cut to fit an image of `size` (height, width).

    Its side is `factor` times the long side of the points' box, at least `least_side`; None if that is nearly the
    image's.
    """
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    side = max(factor * float((high - low).max()), least_side)
    if side > LARGEST_WINDOW * max(size):
        return None
    length = np.minimum(side, size[::-1])
    start = np.clip((low + high - length) / 2, 0, size[::-1] - length)
    (x0, y0), (x1, y1) = np.floor(start), np.ceil(start + length)
    return int(x0), int(y0), int(x1), int(y1)


def in_window(low_res: Floats, frame: Frame, window: Window, inner: Frame) -> Floats:
    """A low-res mask of the photograph as mask prompt for a window of it.

    Args:
        low_res: (side, side) logits of the photograph, whose geometry is `frame`.
        frame: see `low_res`.
        window: part of the photograph.
        inner: the geometry of the window in the model.

    Returns:
        (1, 1, side, side) logits, bilinear at the middle of each cell; -`BOX_LOGIT` right of and below the window.
    """
    side = len(low_res)
    cells = (np.arange(side) + 0.5) * LOW_RES_STRIDE
    there = inner.to_original(np.stack([cells, cells], axis=1)) + window[:2]
    source = frame.to_model(there) / LOW_RES_STRIDE - 0.5
    columns, rows = (interpolation_matrix(source[:, axis], side) for axis in (0, 1))
    mask = rows @ low_res @ columns.T
    height, width = inner.low_res_size
    mask[height:], mask[:, width:] = -BOX_LOGIT, -BOX_LOGIT
    return mask[None, None]


def _positive(points: Iterable[Point]) -> list[tuple[float, float]]:
    return [point[:2] for point in points if point[2] == POSITIVE]


def _within(prompt: ObjectPrompt, window: Window) -> ObjectPrompt:
    """The prompt in pixels of a window; points that it does not show are left out."""
    x0, y0, x1, y1 = window
    points = tuple((x - x0, y - y0, label) for x, y, label in prompt.points if x0 <= x <= x1 and y0 <= y <= y1)
    box = prompt.box
    return ObjectPrompt(points, None if box is None else (box[0] - x0, box[1] - y0, box[2] - x0, box[3] - y0))
