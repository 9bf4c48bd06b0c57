"""Boxes of masks, measured at low resolution."""

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.geometry import LOW_RES_STRIDE, Frame

Floats = NDArray[np.float32]


def original_boxes(logits: Floats, frame: Frame, origin: tuple[int, int] = (0, 0)) -> NDArray[np.float64]:
    """(n, 4): x0, y0, x1, y1 of what is above 0, in pixels of the original image; all NaN where nothing is.

    Args:
        logits: (n, h, w) part of low-res masks, without what lies beside the photograph.
        frame: geometry of the photograph.
        origin: (row, column) at which the part begins.
    """
    top, left = origin
    corners = sub_pixel_boxes(logits).reshape(-1, 2, 2) + np.array([left, top])
    return np.minimum(frame.to_original(corners * LOW_RES_STRIDE), frame.original_size[::-1]).reshape(-1, 4)


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
