"""Outlines of a mask as polygons."""

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.masks.rle import Bools, Ints, Rle

TOLERANCE_PX = 1.0
"""How far a simplified outline may be from the true one."""

Ring = NDArray[np.int64]
"""(n, 2) x and y of corners, on the edges of pixels: a one-pixel mask is a square with a side of 1."""

# Directions of an outline's steps as (x, y), clockwise on the screen: each is a right turn from the one before.
_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])


def polygons(mask: Rle, tolerance_px: float = TOLERANCE_PX) -> list[Ring]:
    """The outer outlines of the 4-connected parts of a mask, simplified; holes are left out."""
    if not mask.area:
        return []
    corner = np.array(mask.box[:2])
    rings = outlines(mask.decode_crop(mask.box))
    return [simplified(ring, tolerance_px) + corner for ring in rings if _signed_area(ring) > 0]


def outlines(mask: Bools) -> list[Ring]:
    """Closed outlines of a bool (height, width) mask: clockwise around foreground, the other way around holes."""
    start, direction = _edges(mask)
    width = mask.shape[1] + 1
    key = (start[:, 1] * width + start[:, 0]) * 4 + direction
    order = np.argsort(key)
    start, direction, key = start[order], direction[order], key[order]
    end = start + _STEPS[direction]
    following = np.full(len(key), -1)
    # Right turn first: where two parts touch at a corner, each outline stays with its own part.
    for turn in (1, 0, 3):
        wanted = (end[:, 1] * width + end[:, 0]) * 4 + (direction + turn) % 4
        place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        found = (following < 0) & (key[place] == wanted)
        following[found] = place[found]
    is_corner = np.empty(len(key), np.bool_)
    is_corner[following] = direction[following] != direction
    return [start[[index for index in cycle if is_corner[index]]] for cycle in _cycles(following.tolist())]


def simplified(ring: Ring, tolerance_px: float) -> Ring:
    """Fewer corners, the left-out ones at most `tolerance_px` off the outline (Douglas and Peucker 1973)."""
    if len(ring) <= 4:
        return ring
    far = int(np.abs(ring - ring[0]).sum(axis=1).argmax())
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), np.bool_)
    keep[[0, far]] = True
    pending = [(0, far), (far, len(ring))]
    while pending:
        first, last = pending.pop()
        if last - first < 2:
            continue
        distance = _distances(closed[first + 1 : last], closed[first], closed[last])
        worst = int(distance.argmax())
        if distance[worst] > tolerance_px:
            middle = first + 1 + worst
            keep[middle] = True
            pending += [(first, middle), (middle, last)]
    keep = keep[:-1]
    return ring[keep] if keep.sum() >= 3 else ring


def _edges(mask: Bools) -> tuple[Ints, Ints]:
    """Steps with foreground on their right and background on their left: start (n, 2) as x, y; direction (n,)."""
    padded = np.pad(mask, 1)
    starts, directions = [], []
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))
    for direction, (neighbour, corner) in enumerate(zip(neighbours, corners, strict=True)):
        y, x = np.nonzero(mask & ~neighbour)
        starts.append(np.stack([x + corner[0], y + corner[1]], axis=1))
        directions.append(np.full(len(x), direction))
    return np.concatenate(starts), np.concatenate(directions)


def _cycles(following: list[int]) -> list[list[int]]:
    """The cycles of a permutation."""
    seen = [False] * len(following)
    cycles = []
    for begin in range(len(following)):
        cycle = []
        index = begin
        while not seen[index]:
            seen[index] = True
            cycle.append(index)
            index = following[index]
        if cycle:
            cycles.append(cycle)
    return cycles


def _signed_area(ring: Ring) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def _distances(points: Ring, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) from points to the segment between start and end."""
    along = (end - start).astype(np.float64)
    length = float(along @ along)
    offset = points - start
    part = np.clip(offset @ along / length, 0, 1) if length else np.zeros(len(points))
    across = offset - part[:, None] * along
    return np.asarray(np.hypot(across[:, 0], across[:, 1]), np.float64)
