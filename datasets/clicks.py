"""Where a patient user clicks: the middle of the object, then the middle of the largest mistake.

The protocol of interactive segmentation (Sofiiuk et al. 2021, arXiv:2102.06583; Xu et al. 2016, arXiv:1603.04042).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bools = NDArray[np.bool_]


def extent(mask: Bools) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a (height, width) mask that is not empty; x1 and y1 are one past the last pixel."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


def depth(mask: Bools) -> tuple[float, tuple[int, int]]:
    """Distance to the boundary of the mask's deepest pixel, and its x and y; the picture's frame is boundary."""
    x0, y0, x1, y1 = extent(mask)
    distance = ndimage.distance_transform_edt(np.pad(mask[y0:y1, x0:x1], 1))
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(distance[y, x]), (int(x) - 1 + x0, int(y) - 1 + y0)


def centre(mask: Bools) -> tuple[int, int]:
    """x and y of the pixel farthest from the boundary of a mask that is not empty."""
    return depth(mask)[1]


def largest_part(mask: Bools) -> Bools:
    """The connected part (8 neighbours) with the most pixels."""
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count < 2:
        return mask
    largest: Bools = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    return largest


def next_click(predicted: Bools, truth: Bools) -> tuple[tuple[int, int], int] | None:
    """x, y and label (1 on the object, 0 off it) of the middle of the largest wrong part; None if nothing is wrong."""
    missed, extra = truth & ~predicted, predicted & ~truth
    parts = [(largest_part(wrong), label) for wrong, label in ((missed, 1), (extra, 0)) if wrong.any()]
    if not parts:
        return None
    part, label = max(parts, key=lambda item: int(item[0].sum()))
    return centre(part), label
