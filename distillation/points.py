"""Where the mask losses are measured: random points, most of them near the object.

A loss on every cell of the low-res mask hardly sees small objects (16 x 16 pixels are 4 x 4 cells). Instead the
logits are interpolated at random points of the full-resolution mask, as in PointRend (Kirillov et al. 2020,
arXiv:1912.08193): one stratum in the object's enlarged box, one over the whole picture. Each point carries the area it
stands for, so sums over points estimate sums over pixels.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tinysam.datasets.clicks import extent

NEAR, FAR = 768, 384
"""Points in the enlarged box and in the whole picture."""
MARGIN = 0.25
"""How far the enlarged box reaches beyond the object, in parts of its size."""
LEAST = 8
"""Smallest margin in pixels."""

Rng = np.random.Generator


def sample_points(mask: NDArray[np.bool_], rng: Rng) -> tuple[NDArray[np.float32], ...]:
    """Points on a mask of the model's square input.

    Returns:
        (N, 2) x and y in [0, 1] of the input's side; (N,) truth, 0 or 1; (N,) area of each point in parts of the
        input, 0 for far points that fall in the enlarged box.
    """
    size = mask.shape[0]
    x0, y0, x1, y1 = extent(mask)
    dx, dy = max(LEAST, MARGIN * (x1 - x0)), max(LEAST, MARGIN * (y1 - y0))
    low = np.array([max(0, x0 - dx), max(0, y0 - dy)])
    high = np.array([min(size, x1 + dx), min(size, y1 + dy)])
    near = low + rng.random((NEAR, 2)) * (high - low)
    far = rng.random((FAR, 2)) * size
    outside = ((far < low) | (far >= high)).any(axis=1)
    area = np.concatenate([np.full(NEAR, np.prod((high - low) / size) / NEAR), outside / FAR])
    points = np.concatenate([near, far])
    x, y = points.astype(np.int64).clip(max=size - 1).T
    return (points / size).astype(np.float32), mask[y, x].astype(np.float32), area.astype(np.float32)


def logits_at(masks: Tensor, points: Tensor) -> Tensor:
    """(P, M, h, w) mask logits interpolated at (P, N, 2) points in [0, 1]: (P, M, N)."""
    grid = points[:, None] * 2 - 1
    return F.grid_sample(masks, grid, align_corners=False, padding_mode="border").squeeze(2)
