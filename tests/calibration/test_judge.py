"""Judgements of models whose masks are squares around the prompt."""

from functools import partial

import numpy as np
import pytest

from tinysam.calibration.feeds import Feed
from tinysam.calibration.judge import OBJECTS, Judge, half_interval, inside, mask_iou
from tinysam.runtime.mask_choice import choose_mask

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


@pytest.fixture
def judge() -> Judge:
    image = np.zeros((1, 3, 4 * SIDE, 4 * SIDE), np.float32)
    return Judge(
        [(image, (4 * SIDE, 4 * SIDE))] * 3, encode, squares(24), seed=0, choose=partial(choose_mask, "best", (1, 2))
    )


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
    # means 0, 1 and 2: a standard deviation of 1, over three photographs
    found = half_interval([np.array([-1.0, 1.0]), np.array([1.0, 1.0]), np.array([2.0])])
    assert found == pytest.approx(1.96 / np.sqrt(3))
    assert half_interval([np.ones(4)]) == float("inf")


def test_every_prompt_of_every_photograph_is_counted(judge: Judge) -> None:
    found = judge.judge(encode, squares(12))
    assert found.prompts == 3 * 2 * OBJECTS
    assert 0 < found.drop_error < 100
