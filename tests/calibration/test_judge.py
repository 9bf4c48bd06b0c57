"""Judgements of models whose masks are squares around the prompt."""

from functools import partial

import numpy as np
import pytest

from tinysam.calibration.feeds import Feed
from tinysam.calibration.judge import OBJECTS, Judge, View, half_interval, inside, mask_iou
from tinysam.runtime.geometry import Frame
from tinysam.runtime.mask_choice import choose_mask
from tinysam.runtime.prompts import assemble

SIDE = 32


def encode(image: np.ndarray) -> np.ndarray:
    return np.zeros((1, 4, SIDE // 4, SIDE // 4), np.float32)


def squares(half: float, better: int = 1):  # type: ignore[no-untyped-def]
    """A decoder that answers with squares of this half side around the mean of the points."""

    def decode(embedding: np.ndarray, feed: Feed) -> tuple[np.ndarray, np.ndarray]:
        coords, labels = feed["point_coords"], feed["point_labels"]
        masks = np.full((len(coords), 2, SIDE, SIDE), -1.0, np.float32)
        row, column = np.mgrid[:SIDE, :SIDE] * 4 + 2
        for p in range(len(coords)):
            x, y = coords[p][labels[p] >= 0].mean(0)
            masks[p, :, (abs(column - x) < half) & (abs(row - y) < half)] = 1.0
        iou = np.tile(np.eye(2, dtype=np.float32)[better], (len(coords), 1))
        return masks, iou

    return decode


def judge_of(fill_boxes: bool) -> Judge:
    """Three views of two photographs."""
    image = np.zeros((1, 3, 4 * SIDE, 4 * SIDE), np.float32)
    views = [View(image, (4 * SIDE, 4 * SIDE), name) for name in ("cat", "dog", "cat")]
    return Judge(views, encode, squares(24), 0, partial(choose_mask, "best", (1, 2)), fill_boxes)


@pytest.fixture
def judge() -> Judge:
    return judge_of(fill_boxes=False)


def test_the_float_model_itself_loses_nothing(judge: Judge) -> None:
    for encoder in (encode, None):
        found = judge.judge(encoder, squares(24))
        assert (found.drop, found.agreement, found.same) == (0, 1, 1)


def test_smaller_masks_lose_points(judge: Judge) -> None:
    found = judge.judge(encode, squares(12))
    assert 0.2 < found.agreement < 0.35  # a quarter of the area, more where the picture cuts the large one off
    assert found.drop > 10


def test_another_choice_of_mask_is_noticed(judge: Judge) -> None:
    assert judge.judge(encode, squares(24, better=0)).same == 0


def test_mask_iou_by_hand() -> None:
    a = np.zeros((2, 4, 4), bool)
    b = a.copy()
    a[0, :2], b[0, 1:3] = True, True
    np.testing.assert_allclose(mask_iou(a, b), [1 / 3, 1])


def test_points_are_drawn_inside_the_mask() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[5, 7] = True
    np.testing.assert_array_equal(inside(mask, (128, 128), rng), [30, 22])
    x, y = inside(np.zeros_like(mask), (40, 60), rng)
    assert 0 <= x <= 60 and 0 <= y <= 40


def test_the_interval_comes_from_the_spread_between_photographs() -> None:
    # means 0, 1 and 2: a standard deviation of 1, over three photographs; Student's t for two degrees of freedom
    views = [np.array([-1.0, 1.0]), np.array([1.0, 1.0]), np.array([2.0, 2.0])]
    assert half_interval(views, ["a", "b", "c"]) == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    assert half_interval([np.ones(4)], ["a"]) == float("inf")


def test_views_of_one_photograph_are_no_further_photographs() -> None:
    views = [np.array([0.0, 0.0]), np.array([1.0, 1.0]), np.array([2.0, 2.0])]
    names = ["a", "b", "c"]
    assert half_interval(views * 4, names * 4) == pytest.approx(half_interval(views, names))
    assert half_interval(views * 4, list("abcdefghijkl")) < half_interval(views, names) / 3


@pytest.mark.parametrize("fill_boxes", [False, True])
def test_boxes_come_with_the_filled_box_where_the_model_wants_one(fill_boxes: bool) -> None:
    box, click = judge_of(fill_boxes).questions[0].prompts
    assert (box["has_mask_input"][0], click["has_mask_input"][0]) == (fill_boxes, 0)
    if fill_boxes:
        height = width = 4 * SIDE
        corners = box["point_coords"].reshape(-1, 4).astype(np.float64)
        expected = assemble(Frame((height, width), width), SIDE, boxes=corners, fill_boxes=True, in_model_frame=True)
        np.testing.assert_array_equal(box["mask_input"], expected.mask_input)
        np.testing.assert_array_equal(box["point_labels"], expected.labels)


def test_every_prompt_of_every_photograph_is_counted(judge: Judge) -> None:
    found = judge.judge(encode, squares(12))
    assert found.prompts == 3 * 2 * OBJECTS
    assert 0 < found.drop_error < 100
