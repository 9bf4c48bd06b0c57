import numpy as np
import pytest

from tests.datasets.drawing import blob
from tinysam.datasets.prompts import (
    about_centre,
    anywhere,
    centre,
    extent,
    first_prompt,
    jittered_box,
    largest_part,
    next_click,
)


def slow_centre_distance(mask: np.ndarray, at: tuple[int, int]) -> float:
    """Distance of a pixel to the nearest one that is not of the mask; the frame counts as such."""
    padded = np.pad(mask, 1)
    ys, xs = np.nonzero(~padded)
    return float(np.sqrt((xs - at[0] - 1) ** 2 + (ys - at[1] - 1) ** 2).min())


@pytest.mark.parametrize("seed", range(6))
def test_centre_is_as_deep_as_any_pixel(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((30, 40), bool)
    for _ in range(3):
        x, y, w, h = rng.integers(0, 20, 4)
        mask[y : y + h + 3, x : x + w + 3] = True
    deepest = max(slow_centre_distance(mask, (x, y)) for y, x in np.argwhere(mask))
    assert slow_centre_distance(mask, centre(mask)) == deepest
    assert mask[centre(mask)[::-1]]


def test_the_quick_centre_is_on_the_mask_and_nearly_as_deep():
    rng = np.random.default_rng(1)
    for _ in range(20):
        mask = np.zeros((60, 80), bool)
        x, y, w, h = rng.integers(1, 30, 4)
        mask[y : y + h, x : x + w] = True
        at = about_centre(mask)
        assert mask[at[::-1]]
        assert slow_centre_distance(mask, at) >= slow_centre_distance(mask, centre(mask)) - 2
    line = np.zeros((60, 80), bool)
    line[5, 7] = True  # between the pixels that are looked at
    assert about_centre(line) == (7, 5)


def test_a_mask_that_fills_the_picture_is_clicked_in_its_middle():
    assert centre(np.ones((9, 9), bool)) == (4, 4)


def test_extent_ends_one_past_the_last_pixel():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:11] = True
    assert extent(mask) == (3, 2, 11, 5)


def test_diagonal_neighbours_belong_together():
    mask = np.eye(6, dtype=bool)
    mask[0, 4:6] = True
    assert largest_part(mask).sum() == 6


def test_the_next_click_is_in_the_largest_mistake():
    truth, predicted = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    truth[0:7, 0:7] = True
    predicted[20:31, 20:31] = True
    assert next_click(predicted, truth) == ((25, 25), 0)
    predicted[20:31, 20:31] = False
    assert next_click(predicted, truth) == ((3, 3), 1)


def test_there_is_no_next_click_where_nothing_is_wrong():
    truth = np.eye(5, dtype=bool)
    assert next_click(truth, truth) is None


def test_jittered_box_without_jitter_is_exact():
    mask = np.zeros((40, 50), bool)
    mask[10:20, 5:31] = True
    assert jittered_box(mask, 0.0, np.random.default_rng(0)).tolist() == [[5, 10], [31, 20]]


def test_jitter_is_at_most_20_pixels_and_stays_inside():
    mask = np.zeros((448, 448), bool)
    mask[5:440, 30:400] = True
    boxes = np.array([jittered_box(mask, 0.5, np.random.default_rng(i)) for i in range(200)])
    assert np.abs(boxes - [[30, 5], [400, 440]]).max() <= 20
    assert boxes.min() >= 0
    assert boxes.max() <= 448


def test_first_prompt_of_a_click_has_a_padding_point():
    mask = blob(3)
    coords, labels = first_prompt(mask, False, np.random.default_rng(0))
    assert labels.tolist() == [1, -1]
    assert mask[int(coords[0, 1]), int(coords[0, 0])]


def test_anywhere_stays_on_the_object():
    mask = blob(5)
    for seed in range(50):
        x, y = anywhere(mask, np.random.default_rng(seed))
        assert mask[int(y), int(x)]
