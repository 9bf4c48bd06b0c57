"""Which points segment-everything asks, and when: by hand."""

import numpy as np
import pytest

from tinysam.runtime.everything.points import NEIGHBOUR, GridPlan, HierarchicalPlan, coarse_points, point_grid


def ask_all(plan: GridPlan) -> list[int]:
    asked: list[int] = []
    while len(taken := plan.take()):
        asked += taken.tolist()
    return asked


def test_the_plain_grid_is_asked_in_order() -> None:
    assert ask_all(GridPlan(np.arange(10), 3)) == list(range(10))
    assert not ask_all(GridPlan(np.arange(0), 3))


@pytest.mark.parametrize("side", [1, 2, 4, 7, 32, 35])
def test_the_coarse_grid_is_spread_over_the_grid(side: int) -> None:
    points = point_grid(side)
    coarse = points[coarse_points(points, side)]
    assert len(coarse) == max(1, side // 4) ** 2
    nearest = np.sqrt(np.square(points[:, None] - coarse).sum(axis=2).min(axis=1))
    assert nearest.max() < 0.75 / max(1, side // 4) + 0.5 / side  # half a diagonal of its cell, and the way there


def test_the_coarse_grid_of_given_points_is_some_of_them() -> None:
    points = np.random.default_rng(0).uniform(size=(50, 2))
    assert 1 <= len(coarse_points(points, 8)) <= 4
    assert not ask_all(HierarchicalPlan(np.empty((0, 2)), 8, 1, 1.0))


def test_no_point_is_asked_twice() -> None:
    asked = ask_all(HierarchicalPlan(point_grid(12), 12, 100, 1.0))
    assert len(asked) == len(set(asked)) < 144  # points whose neighbours were all asked are known


def test_points_far_from_the_asked_ones_come_first() -> None:
    # One coarse point, next to the middle of 4 x 4 points; the corner across is the farthest from it.
    plan = HierarchicalPlan(point_grid(4), 4, 1, 1.0)
    assert ask_all(plan)[:2] == [5, 15]


def test_a_covered_point_waits_and_enough_masks_leave_it_out() -> None:
    points = point_grid(4)
    order = {}
    for covering in (0, 1, 4):
        plan = HierarchicalPlan(points, 4, 4, 1.0)
        plan.take()
        plan.cover(np.where(np.arange(16) == 15, covering, 0))
        order[covering] = ask_all(plan)
    assert order[0][0] == 15
    assert order[1][0] != 15
    assert 15 not in order[4]


@pytest.mark.parametrize(("missing", "asked"), [(1e-6, [0]), (-1e-6, [])])
def test_neighbours_count_by_their_distance_in_steps_of_the_grid(missing: float, asked: list[int]) -> None:
    """Of three points in a row the middle one is asked. The left one needs as much as its neighbour does not give."""
    plan = HierarchicalPlan(np.array([[0.125, 0.5], [0.375, 0.5], [0.625, 0.5]]), 4, 100, 1.0)
    assert plan.take().tolist() == [1]
    plan.cover(np.array([100 * (1 - NEIGHBOUR * np.exp(-0.5) - missing), 0, 1000]))
    assert plan.take().tolist() == asked


def test_a_share_bounds_the_points() -> None:
    assert len(ask_all(HierarchicalPlan(point_grid(16), 16, 100, 0.25))) == 64
    assert len(ask_all(HierarchicalPlan(point_grid(16), 16, 100, 0.0))) == 16
