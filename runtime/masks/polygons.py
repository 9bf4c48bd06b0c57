"""Outlines of a mask as polygons.

A polygon of COCO or LabelMe has one outline. A hole is therefore joined to it by a bridge: two edges that lie on each
other and enclose nothing, from the outline to the hole and back.
"""

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.masks.rle import Bools, Ints, Rle

TOLERANCE_PX = 1.0
"""How far a simplified outline may be from the true one."""

Ring = NDArray[np.int64]
"""(n, 2) x and y of corners, on the edges of pixels: a one-pixel mask is a square with a side of 1."""

_FAR = np.iinfo(np.int64).max

# Directions of an outline's steps as (x, y), clockwise on the screen: each is a right turn from the one before.
_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])


def polygons(mask: Rle, tolerance_px: float = TOLERANCE_PX) -> list[Ring]:
    """The 4-connected parts of a mask, each as one simplified outline with bridges to its holes."""
    if not mask.area:
        return []
    corner = np.array(mask.box[:2])
    pixels = mask.decode_crop(mask.box)
    rings = outlines(pixels)
    outer = sorted((ring for ring in rings if _signed_area(ring) > 0), key=_signed_area)
    boxes = np.array([(*ring.min(axis=0), *ring.max(axis=0)) for ring in outer])
    holes: list[list[Ring]] = [[] for _ in outer]
    for ring in rings:
        if _signed_area(ring) < 0:
            holes[_owner(ring, outer, boxes)].append(simplified(ring, tolerance_px))
    return [
        _bridged(simplified(ring, tolerance_px), inside) + corner for ring, inside in zip(outer, holes, strict=True)
    ]


def ring_area(ring: Ring) -> float:
    """Area in pixels of an outline with bridges."""
    return abs(_signed_area(ring))


def _owner(hole: Ring, outer: list[Ring], boxes: Ints) -> int:
    """Index of the smallest outline (they are sorted by area) around a hole; `boxes` (n, 4) are those of the outlines.

    A hole may share corners with its own outline, but no edge: the middle of the pixel of foreground beside one of its
    edges decides.
    """
    step = np.sign(hole[1] - hole[0])
    x, y = hole[0] + 0.5 * step + 0.5 * np.array([-step[1], step[0]])  # foreground is on the right of a step
    around = (boxes[:, 0] < x) & (boxes[:, 1] < y) & (boxes[:, 2] > x) & (boxes[:, 3] > y)
    for index in np.flatnonzero(around):
        start, end = outer[index], np.roll(outer[index], -1, axis=0)
        crosses = ((start[:, 1] > y) != (end[:, 1] > y)) & (start[:, 0] > x)  # edges are vertical or horizontal
        if np.count_nonzero(crosses) % 2:
            return int(index)
    raise AssertionError("a hole lies in no outline")


def _bridged(outline: Ring, holes: list[Ring]) -> Ring:
    """One outline that runs around the part and, from the leftmost hole on, over a bridge around each of its holes.

    A bridge leads from the hole's leftmost corner to the nearest corner of what is joined already that is not right of
    it: no hole that is still to come lies between them.
    """
    corners: Ring = np.concatenate([outline, *(part for hole in holes for part in (hole, outline[:2]))])
    following = np.arange(1, len(corners) + 1)
    joined = len(outline)
    following[joined - 1] = 0
    for hole in sorted(holes, key=lambda ring: int(ring[:, 0].min())):
        first = hole[hole[:, 0].argmin()]
        x, y = corners[:joined].T
        at = int(np.where(x > first[0], _FAR, (x - first[0]) ** 2 + (y - first[1]) ** 2).argmin())
        # The hole from its leftmost corner round to that corner again, and the corner at the bridge's other end.
        end = joined + len(hole) + 1
        corners[joined:end] = np.roll(hole, -int(hole[:, 0].argmin()), axis=0)[np.arange(len(hole) + 1) % len(hole)]
        corners[end] = corners[at]
        following[at], following[end] = joined, following[at]
        joined = end + 1
    order, index = [], 0
    for _ in range(joined):
        order.append(index)
        index = int(following[index])
    joined_up: Ring = corners[order]
    return joined_up


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
