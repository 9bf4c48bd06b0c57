"""Simulated prompts to annotated masks.

Evaluation: `centre` and `next_click`, a click in the middle of the object, then in the middle of the largest mistake:
the protocol of interactive segmentation (Sofiiuk et al. 2021, arXiv:2102.06583; Xu et al. 2016, arXiv:1603.04042).

Training: `first_prompt`, a jittered box, a click in the middle, or a click anywhere on the object. Further clicks
depend on the prediction: `tinysam.distillation.rounds`.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tinysam.runtime.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PADDING, POSITIVE

Bools = NDArray[np.bool_]
Rng = np.random.Generator

EXACT_BOXES = 0.75
"""Share of the boxes that are exact."""
JITTER = 0.1
"""Standard deviation of the other boxes' sides, in parts of the box."""


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


def about_centre(mask: Bools) -> tuple[int, int]:
    """`centre` to two pixels, at a quarter of the time; a pixel of the mask as well."""
    coarse = mask[::2, ::2]
    if not coarse.any():
        return centre(mask)
    x, y = centre(coarse)
    return 2 * x, 2 * y


def anywhere(mask: Bools, rng: Rng) -> tuple[float, float]:
    """x, y of a pixel of the mask, all equally likely."""
    flat = np.flatnonzero(mask)
    y, x = divmod(int(flat[rng.integers(len(flat))]), mask.shape[1])
    return float(x), float(y)


def jittered_box(mask: Bools, jitter: float, rng: Rng) -> NDArray[np.float32]:
    """(2, 2) corners of the mask's box, each side moved by a normal deviate of `jitter` times the box's size.

    At most 20 pixels, as SAM was trained (arXiv:2304.02643, appendix A).
    """
    x0, y0, x1, y1 = extent(mask)
    deviation = np.array([x1 - x0, y1 - y0]) * jitter
    noise = (rng.standard_normal((2, 2)) * deviation).clip(-20, 20)
    corners = np.array([[x0, y0], [x1, y1]]) + noise
    corners = np.sort(corners, axis=0)
    return corners.clip(0, [mask.shape[1], mask.shape[0]]).astype(np.float32)


def first_prompt(mask: Bools, box: bool, rng: Rng) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(2, 2) points and (2,) labels: a box, or a click and its padding point.

    Three quarters of the boxes are exact and the others jittered; half of the clicks are in the middle, half anywhere.
    """
    if box:
        corners = jittered_box(mask, 0.0 if rng.uniform() < EXACT_BOXES else JITTER, rng)
        return corners, np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT])
    easy = rng.uniform() < 0.5
    click = about_centre(mask) if easy else anywhere(mask, rng)
    return np.array([click, (0, 0)], np.float32), np.array([POSITIVE, PADDING])
