"""Masks that may become results: measured and filtered at low resolution, kept as small pieces."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.geometry import LOW_RES_STRIDE, Frame

Floats = NDArray[np.float32]

_MARGIN = 2
"""Low-res pixels around a mask that its upscaling may draw on: two bilinear steps reach this far."""
_EDGE_TOLERANCE_PX = 20.0
"""SAM: a mask that ends this close to the edge of its crop was probably cut off by it."""


@dataclass(frozen=True)
class Candidate:
    """One mask of a crop."""

    logits: Floats
    """The part of the low-res mask around the object; beyond it every logit is below the threshold."""
    origin: tuple[int, int]
    """(row, column) of that part in the low-res mask."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the crop."""
    predicted_iou: float
    stability_score: float
    point: tuple[float, float]
    """Prompt, x and y in pixels of the crop."""


def sub_pixel_boxes(logits: Floats) -> NDArray[np.float64]:
    """(n, h, w) logits -> (n, 4): x0, y0, x1, y1 of what is above 0, in low-res pixels; all NaN where nothing is.

    Between the last row that is above 0 somewhere and the next one, the edge is where their largest logits, taken as a
    straight line, cross 0: close to what upscaling gives, so that boxes of small objects compare well.
    """
    x0, x1 = _crossings(logits.max(axis=1))
    y0, y1 = _crossings(logits.max(axis=2))
    return np.stack([x0, y0, x1, y1], axis=1)


def _crossings(profile: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last place, in pixels, where the profiles (n, length) are above 0; NaN where they never are."""
    mirrored = _first_crossing(profile[:, ::-1])
    return _first_crossing(profile), profile.shape[1] - mirrored


def _first_crossing(profile: Floats) -> NDArray[np.float64]:
    above = profile > 0
    first = above.argmax(axis=1)
    row = np.arange(len(profile))
    inside = profile[row, first].astype(np.float64)
    before = profile[row, np.maximum(first - 1, 0)].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        place = np.where(first == 0, 0.0, first + 0.5 - inside / (inside - before))
    return np.where(above.any(axis=1), place, np.nan)


def make_candidates(
    frame: Frame, logits: Floats, iou: Floats, scores: NDArray[np.float64], points: NDArray[np.float64]
) -> list[Candidate]:
    """Candidates of (n, side, side) masks that are not empty inside the photograph; `points` are (n, 2) in the crop."""
    height, width = frame.low_res_size
    boxes = sub_pixel_boxes(logits[:, :height, :width])
    return [
        _candidate(frame, logits[index], boxes[index], float(iou[index]), float(scores[index]), points[index])
        for index in np.flatnonzero(~np.isnan(boxes[:, 0]))
    ]


def _candidate(
    frame: Frame, logits: Floats, low_box: NDArray[np.float64], iou: float, score: float, point: NDArray[np.float64]
) -> Candidate:
    x0, y0, x1, y1 = low_box.astype(int).tolist()
    top, left = max(0, y0 - _MARGIN), max(0, x0 - _MARGIN)
    piece = logits[top : y1 + 1 + _MARGIN, left : x1 + 1 + _MARGIN].copy()
    height, width = frame.original_size
    corners = frame.to_original(low_box.reshape(2, 2) * LOW_RES_STRIDE)
    (box_x0, box_y0), (box_x1, box_y1) = np.minimum(corners, [width, height]).tolist()
    x, y = point.tolist()
    return Candidate(piece, (top, left), (box_x0, box_y0, box_x1, box_y1), iou, score, (x, y))


def boxes_of(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """(n, 4)."""
    return np.array([candidate.box for candidate in candidates], np.float64).reshape(-1, 4)


def cut_by_crop(
    boxes: NDArray[np.float64], crop: tuple[int, int, int, int], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """(n,) True for boxes of the photograph that end near an edge of the crop which is not the photograph's."""
    height, width = size
    near_crop = np.abs(boxes - crop) <= _EDGE_TOLERANCE_PX
    near_image = np.abs(boxes - [0, 0, width, height]) <= _EDGE_TOLERANCE_PX
    cut: NDArray[np.bool_] = np.any(near_crop & ~near_image, axis=1)
    return cut


def moved(candidate: Candidate, crop: tuple[int, int, int, int]) -> Candidate:
    """The candidate with box and point in pixels of the photograph."""
    x, y = crop[:2]
    x0, y0, x1, y1 = candidate.box
    return replace(
        candidate,
        box=(x0 + x, y0 + y, x1 + x, y1 + y),
        point=(candidate.point[0] + x, candidate.point[1] + y),
    )
