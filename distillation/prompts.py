"""First prompts: a jittered box, a click in the middle, or a click anywhere on the object."""

import numpy as np
from numpy.typing import NDArray

from tinysam.datasets.clicks import centre, extent
from tinysam.runtime.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PADDING, POSITIVE

Rng = np.random.Generator
Mask = NDArray[np.bool_]

EXACT_BOXES = 0.75
"""Share of the boxes that are exact."""
JITTER = 0.1
"""Standard deviation of the other boxes' sides, in parts of the box."""


def anywhere(mask: Mask, rng: Rng) -> tuple[float, float]:
    """x, y of a pixel of the mask, all equally likely."""
    flat = np.flatnonzero(mask)
    y, x = divmod(int(flat[rng.integers(len(flat))]), mask.shape[1])
    return float(x), float(y)


def jittered_box(mask: Mask, jitter: float, rng: Rng) -> NDArray[np.float32]:
    """(2, 2) corners of the mask's box, each side moved by a normal deviate of `jitter` times the box's size.

    At most 20 pixels, as SAM was trained (arXiv:2304.02643, appendix A).
    """
    x0, y0, x1, y1 = extent(mask)
    deviation = np.array([x1 - x0, y1 - y0]) * jitter
    noise = (rng.standard_normal((2, 2)) * deviation).clip(-20, 20)
    corners = np.array([[x0, y0], [x1, y1]]) + noise
    corners = np.sort(corners, axis=0)
    return corners.clip(0, [mask.shape[1], mask.shape[0]]).astype(np.float32)


def first_prompt(mask: Mask, box: bool, rng: Rng) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(2, 2) points and (2,) labels: a box, or a click and its padding point.

    Three quarters of the boxes are exact and the others jittered; half of the clicks are in the middle, half anywhere.
    """
    if box:
        corners = jittered_box(mask, 0.0 if rng.uniform() < EXACT_BOXES else JITTER, rng)
        return corners, np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT])
    easy = rng.uniform() < 0.5
    click = centre(mask) if easy else anywhere(mask, rng)
    return np.array([click, (0, 0)], np.float32), np.array([POSITIVE, PADDING])
