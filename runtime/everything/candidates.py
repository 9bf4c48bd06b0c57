"""Masks that may become results: measured and filtered at low resolution, kept as small pieces."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.geometry import Frame
from tinysam.runtime.manifest import Cleaning
from tinysam.runtime.masks.boxes import original_boxes
from tinysam.runtime.masks.clean import clean_mask
from tinysam.runtime.masks.nms import mask_groups, nms

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

_MARGIN = 2
"""Low-res pixels around a mask that its upscaling may draw on: two bilinear steps reach this far."""
_EDGE_TOLERANCE_PX = 20.0
"""SAM: a mask that ends this close to the edge of its crop was probably cut off by it."""


@dataclass(frozen=True)
class Candidate:
    """One mask of a crop."""

    logits: Floats
    """The part of the low-res mask around the object; beyond it every logit is below the threshold."""
    mask: Bools
    """Where that part is above the threshold, cut off where the photograph ends."""
    origin: tuple[int, int]
    """(row, column) of that part in the low-res mask."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the crop."""
    predicted_iou: float
    stability_score: float
    point: tuple[float, float]
    """Prompt, x and y in pixels of the crop."""


def make_candidates(
    frame: Frame, logits: Floats, iou: Floats, scores: NDArray[np.float64], points: NDArray[np.float64]
) -> list[Candidate]:
    """Candidates of (n, side, side) masks that are not empty inside the photograph; `points` are (n, 2) in the crop."""
    return _cut_out(frame, logits, (0, 0), iou.tolist(), scores.tolist(), points.tolist())


def _cut_out(
    frame: Frame,
    logits: Floats,
    origin: tuple[int, int],
    iou: Sequence[float],
    scores: Sequence[float],
    points: Sequence[Sequence[float]],
) -> list[Candidate]:
    """Candidates of the same part (n, h, w) of low-res masks, that starts at `origin`; none of empty ones."""
    top, left = origin
    height, width = frame.low_res_size
    seen = logits[:, : height - top, : width - left]
    masks = seen > 0
    rows, columns = masks.any(axis=2), masks.any(axis=1)
    boxes = original_boxes(seen, frame, origin)
    found = []
    for index in np.flatnonzero(rows.any(axis=1)):
        y, x = (_reach(used[index]) for used in (rows, columns))
        piece, mask = logits[index, y, x].copy(), masks[index, y, x].copy()
        x0, y0, x1, y1 = boxes[index].tolist()
        px, py = points[index]
        place = top + y.start, left + x.start
        found.append(Candidate(piece, mask, place, (x0, y0, x1, y1), iou[index], scores[index], (px, py)))
    return found


def _reach(used: Bools) -> slice:
    """From the first to the last place that is used, with what upscaling draws on around them."""
    places = np.flatnonzero(used)
    return slice(max(0, int(places[0]) - _MARGIN), int(places[-1]) + 1 + _MARGIN)


def distinct(candidates: Sequence[Candidate], settings: EverythingSettings, frame: Frame) -> list[Candidate]:
    """One candidate for each object that some of one crop show, best first.

    Boxes are compared as in SAM, and the one of higher predicted IoU stays. Or masks are, if the settings have a
    threshold for them. Then stability counts as well, which finds the best mask of an object more often, and its logits
    become the mean of all that show the object: better than any of them.
    """
    predicted = np.array([one.predicted_iou for one in candidates])
    if settings.mask_nms_thresh is None:
        return [candidates[index] for index in nms(boxes_of(candidates), predicted, settings.box_nms_thresh)]
    scores = predicted * np.array([one.stability_score for one in candidates])
    masks, origins = [one.mask for one in candidates], [one.origin for one in candidates]
    groups = mask_groups(masks, origins, scores, settings.mask_nms_thresh)
    return [_mean([candidates[index] for index in group], scores[group], frame) for group in groups]


def _mean(group: Sequence[Candidate], weights: NDArray[np.float64], frame: Frame) -> Candidate:
    """The first candidate with the mean logits of all; where a piece ends, it has the mean of its background."""
    if len(group) == 1:
        return group[0]
    corners = np.array([[*one.origin, *np.add(one.origin, one.logits.shape)] for one in group])
    (top, left), (bottom, right) = corners[:, :2].min(axis=0).tolist(), corners[:, 2:].max(axis=0).tolist()
    total = np.zeros((bottom - top, right - left), np.float32)
    for one, weight in zip(group, (weights / weights.sum()).astype(np.float32), strict=True):
        background = one.logits[one.logits <= 0]
        whole = np.full_like(total, background.mean() if len(background) else 0)
        y, x = one.origin[0] - top, one.origin[1] - left
        whole[y : y + one.logits.shape[0], x : x + one.logits.shape[1]] = one.logits
        total += weight * whole
    return (_changed(group[0], total, (top, left), frame) or group)[0]


def cleaned(candidate: Candidate, cleaning: Cleaning, frame: Frame) -> Candidate:
    """The candidate of a crop with that frame without small islands and holes."""
    top, left = candidate.origin
    height, width = frame.low_res_size
    logits = clean_mask(candidate.logits, cleaning, (height - top, width - left))
    if logits is candidate.logits:
        return candidate
    (other,) = _changed(candidate, logits, candidate.origin, frame)
    return other


def _changed(one: Candidate, logits: Floats, origin: tuple[int, int], frame: Frame) -> list[Candidate]:
    """The candidate with other logits (h, w); none if they are not above 0 anywhere in the photograph."""
    return _cut_out(frame, logits[None], origin, [one.predicted_iou], [one.stability_score], [one.point])


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
