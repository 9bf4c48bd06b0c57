"""Which points of a grid segment-everything asks, and in which order.

The plain grid asks every point. Hierarchical mode starts as TinySAM does (Shu et al. 2023, arXiv:2312.13789) and then
looks again every few points, not once:

1. It asks a coarse grid of points first, a quarter as many on each side.
2. A point is known the better the more good masks cover it and the nearer it is to points that were asked:
   `covering / agreement + NEIGHBOUR * sum(exp(-distance^2 / 2))`, distances in steps of the grid.
3. The least known points come next, a round of them at a time. A point that is known by 1 or more is not asked, and no
   more than a share of the grid is.

With an agreement of 1 a point is done where a single good mask covers it, which is TinySAM's rule. With more, a part
inside of a found object is looked for as long as the object is all that was found.
"""

import numpy as np
from numpy.typing import NDArray

COARSE_DIVISOR = 4
"""The coarse grid has this many times fewer points on each side."""
NEIGHBOUR = 0.3
"""What an asked point right beside a point would count; one a step away counts 0.6 of it, two steps away 0.14."""

ROUND = 4
"""Points between two looks at what is known; 1 to 8 find the same."""

Points = NDArray[np.float64]
Indexes = NDArray[np.intp]


def point_grid(points_per_side: int) -> Points:
    """(n * n, 2) x and y in 0 to 1, row by row: the centres of n x n equal cells."""
    centres = (np.arange(points_per_side) + 0.5) / points_per_side
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def coarse_points(points: Points, points_per_side: int) -> Indexes:
    """Those of the points (n, 2), x and y in 0 to 1, that are next to the points of the coarse grid; ascending."""
    if not len(points):
        return np.empty(0, np.intp)
    # Up and left of the middle between four points, so that rounding does not choose.
    wanted = point_grid(max(1, points_per_side // COARSE_DIVISOR)) - 1e-6
    return np.array(sorted({int(np.square(points - place).sum(axis=1).argmin()) for place in wanted}), np.intp)


class GridPlan:
    """Every point, in order."""

    def __init__(self, queue: Indexes, round_size: int) -> None:
        self._queue, self._round = queue, round_size

    def take(self) -> Indexes:
        """The next round of points to ask; none if all is done."""
        taken, self._queue = self._queue[: self._round], self._queue[self._round :]
        return taken

    def cover(self, covering: NDArray[np.intp]) -> None:
        """Tells how many further good masks (n,) cover each point."""


class HierarchicalPlan(GridPlan):
    """The coarse grid, then the points that are least known."""

    def __init__(self, points: Points, points_per_side: int, agreement: int, share: float) -> None:
        """
        Args:
            points: (n, 2) x and y in 0 to 1.
            points_per_side: of the grid they form, or are about as dense as.
            agreement: good masks that make a point known.
            share: most of the points that are asked, as a part of all.
        """
        super().__init__(coarse_points(points, points_per_side), ROUND)
        self._steps, self._agreement = points * points_per_side, agreement
        self._left = max(0, round(share * len(points)) - len(self._queue))
        self._known = np.zeros(len(points))
        for index in self._queue:
            self._ask(index)

    def take(self) -> Indexes:
        """See `GridPlan.take`."""
        if len(self._queue):
            return super().take()
        taken = []
        for _ in range(min(self._round, self._left)):
            index = int(self._known.argmin())
            if self._known[index] >= 1:
                break
            taken.append(index)
            self._ask(index)
        self._left -= len(taken)
        return np.array(taken, np.intp)

    def cover(self, covering: NDArray[np.intp]) -> None:
        """See `GridPlan.cover`."""
        self._known += covering / self._agreement

    def _ask(self, index: int) -> None:
        self._known += NEIGHBOUR * np.exp(-0.5 * np.square(self._steps - self._steps[index]).sum(axis=1))
        self._known[index] = np.inf
