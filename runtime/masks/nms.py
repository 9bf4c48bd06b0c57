"""Non-maximum suppression: of masks that show the same object, the best stays.

A mask goes if its IoU with a better one that stays is above a threshold; of equal scores the earlier is the better. SAM
compares boxes. Masks tell more: an arch and what stands below it have one box, and a thin diagonal object in two
versions has two. They are compared at low resolution, and only where their areas and boxes allow such an IoU at all.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Indexes = NDArray[np.intp]


def nms(boxes: NDArray[np.float64], scores: NDArray[np.float64], threshold: float) -> Indexes:
    """Indices of the boxes to keep, best score first.

    Args:
        boxes: (n, 4) x0, y0, x1, y1.
        scores: (n,).
        threshold: IoU in 0 to 1.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    def duplicates(index: int, others: Indexes) -> Bools:
        overlap = _overlaps(boxes[index], boxes[others])
        same: Bools = overlap > threshold * (areas[index] + areas[others] - overlap)
        return same

    return np.array([group[0] for group in _suppress(scores, duplicates)], np.intp)


def mask_groups(
    masks: Sequence[Bools], origins: Sequence[tuple[int, int]], scores: NDArray[np.float64], threshold: float
) -> list[Indexes]:
    """Indices of the masks that show one object together, the best object first and the best mask of each first.

    Args:
        masks: the part around each object, bool (h, w).
        origins: (row, column) of each part in the whole.
        scores: (n,).
        threshold: IoU in 0 to 1.
    """
    areas = np.array([np.count_nonzero(mask) for mask in masks], np.int64)
    corners = [(left, top, left + mask.shape[1], top + mask.shape[0]) for mask, (top, left) in _pairs(masks, origins)]
    boxes = np.array(corners, np.int64).reshape(-1, 4)

    def duplicates(index: int, others: Indexes) -> Bools:
        most = np.minimum(_overlaps(boxes[index], boxes[others]), np.minimum(areas[index], areas[others]))
        total = areas[index] + areas[others]
        same: Bools = most > threshold * (total - most)
        for place in np.flatnonzero(same):
            shared = _shared(masks[index], boxes[index], masks[others[place]], boxes[others[place]])
            same[place] = shared > threshold * (total[place] - shared)
        return same

    return _suppress(scores, duplicates)


def _suppress(scores: NDArray[np.float64], duplicates: Callable[[int, Indexes], Bools]) -> list[Indexes]:
    """Goes through the scores from the best; `duplicates` tells which of the others are the same as one that stays."""
    left = np.argsort(-scores, kind="stable")
    groups = []
    while len(left):
        same = duplicates(int(left[0]), left[1:])
        groups.append(np.concatenate([left[:1], left[1:][same]]))
        left = left[1:][~same]
    return groups


def _overlaps(box: NDArray[np.generic], others: NDArray[np.generic]) -> NDArray[np.generic]:
    """(n,) areas that a box (4,) shares with others (n, 4)."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    shared: NDArray[np.generic] = np.prod(np.maximum(high - low, 0), axis=1)
    return shared


def _shared(mask: Bools, box: NDArray[np.int64], other: Bools, other_box: NDArray[np.int64]) -> int:
    """Pixels that two masks have in common."""
    x0, y0 = np.maximum(box[:2], other_box[:2])
    x1, y1 = np.minimum(box[2:], other_box[2:])
    mine = mask[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]]
    theirs = other[y0 - other_box[1] : y1 - other_box[1], x0 - other_box[0] : x1 - other_box[0]]
    return int(np.count_nonzero(mine & theirs))


def _pairs(masks: Sequence[Bools], origins: Sequence[tuple[int, int]]) -> list[tuple[Bools, tuple[int, int]]]:
    return list(zip(masks, origins, strict=True))
