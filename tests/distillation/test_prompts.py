import numpy as np
import pytest
import torch

from tinysam.distillation.points import sample_points
from tinysam.distillation.prompts import anywhere, first_prompt, jittered_box
from tinysam.distillation.rounds import draw_true, next_click


def blob(seed: int, size: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros((size, size), bool)
    x, y, w, h = rng.integers(2, 20, 4)
    mask[y : y + h + 8, x : x + w + 8] = True
    return mask


def test_draw_true_reaches_every_true_pixel_and_no_other():
    mask = torch.zeros(1, 5, 7, dtype=torch.bool)
    mask[0, 1, 2] = mask[0, 3, 6] = mask[0, 4, 0] = True
    at = draw_true(mask.expand(3, -1, -1), torch.tensor([0.0, 0.5, 0.999999]))
    assert at.tolist() == [[2, 1], [6, 3], [0, 4]]


@pytest.mark.parametrize("seed", range(5))
def test_next_click_lies_where_prediction_and_truth_differ(seed):
    truth, predicted = torch.from_numpy(np.stack([blob(seed)] * 50)), torch.from_numpy(np.stack([blob(seed + 9)] * 50))
    coords, labels = next_click(predicted, truth, torch.linspace(0, 0.999, 50))
    x, y = coords[:, 0].long().unbind(1)
    rows = torch.arange(50)
    assert (predicted[rows, y, x] != truth[rows, y, x]).all()
    assert (labels[:, 0].bool() == truth[rows, y, x]).all()
    possible = truth[0][predicted[0] ^ truth[0]].unique().long().tolist()
    assert sorted(set(labels[:, 0].tolist())) == possible


def test_next_click_of_a_perfect_mask_lies_on_the_object():
    truth = torch.from_numpy(blob(1))[None]
    coords, labels = next_click(truth, truth, torch.tensor([0.3]))
    x, y = coords[0, 0].long()
    assert truth[0, y, x]
    assert labels.item() == 1


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


@pytest.mark.parametrize("side", [6, 60, 200])
def test_points_estimate_the_area_of_small_and_large_masks(side):
    mask = np.zeros((224, 224), bool)
    mask[12 : 12 + side, 9 : 9 + side] = True
    estimates = []
    for seed in range(20):
        _, truth, area = sample_points(mask, np.random.default_rng(seed))
        estimates.append((truth * area).sum())
        assert area.sum() == pytest.approx(1, abs=0.1)
    assert np.mean(estimates) == pytest.approx((side / 224) ** 2, rel=0.05)


def test_points_carry_the_truth_of_their_pixel():
    mask = blob(7, 224)
    at, truth, _ = sample_points(mask, np.random.default_rng(0))
    x, y = (at * 224).astype(int).T
    assert (mask[y, x] == truth.astype(bool)).all()
