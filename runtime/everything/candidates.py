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


def stability(logits: Floats, offset: float) -> NDArray[np.float64]:
    """(n, h, w) logits -> (n,): area above `+offset` as a part of the area above `-offset`; 0 where that is empty."""
    flat = logits.reshape(len(logits), -1)
    inner = np.count_nonzero(flat > offset, axis=1)
    outer = np.count_nonzero(flat > -offset, axis=1)
    score: NDArray[np.float64] = inner / np.maximum(outer, 1)
    return score


def low_res_boxes(logits: Floats) -> NDArray[np.intp]:
    """(n, h, w) logits -> (n, 4): x0, y0, x1, y1 of what is above 0, ends not included; all 0 where nothing is."""
    above = logits > 0
    bounds = []
    for axis in (1, 2):
        used = above.any(axis=axis)
        first = used.argmax(axis=1)
        last = used.shape[1] - used[:, ::-1].argmax(axis=1)
        empty = ~used.any(axis=1)
        bounds += [np.where(empty, 0, first), np.where(empty, 0, last)]
    return np.stack([bounds[0], bounds[2], bounds[1], bounds[3]], axis=1)


def make_candidates(
    frame: Frame, logits: Floats, iou: Floats, scores: NDArray[np.float64], points: NDArray[np.float64]
) -> list[Candidate]:
    """Candidates of (n, side, side) masks that are not empty inside the photograph; `points` are (n, 2) in the crop."""
    height, width = frame.low_res_size
    boxes = low_res_boxes(logits[:, :height, :width])
    return [
        _candidate(frame, logits[index], boxes[index].tolist(), float(iou[index]), float(scores[index]), points[index])
        for index in np.flatnonzero(boxes[:, 2] > boxes[:, 0])
    ]


def _candidate(
    frame: Frame, logits: Floats, low_box: list[int], iou: float, score: float, point: NDArray[np.float64]
) -> Candidate:
    x0, y0, x1, y1 = low_box
    top, left = max(0, y0 - _MARGIN), max(0, x0 - _MARGIN)
    piece = logits[top : y1 + _MARGIN, left : x1 + _MARGIN].copy()
    height, width = frame.original_size
    corners = frame.to_original(np.array([[x0, y0], [x1, y1]]) * LOW_RES_STRIDE)
    (box_x0, box_y0), (box_x1, box_y1) = np.minimum(corners, [width, height]).tolist()
    return Candidate(
        piece, (top, left), (box_x0, box_y0, box_x1, box_y1), iou, score, (float(point[0]), float(point[1]))
    )


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
