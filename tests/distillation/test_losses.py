import math

import numpy as np
import pytest
import torch

from tests.datasets.drawing import blob
from tinysam.distillation.losses import (
    FAR,
    NEAR,
    cross_entropy,
    dice,
    embedding_l1,
    embedding_mse,
    focal,
    hard_mask_weight,
    iou_at,
    iou_l1,
    mask_l1,
    of_three,
    predicted_iou,
    sample_points,
    token_l1,
)

N = NEAR + FAR


def test_cross_entropy_weighs_near_and_far_points_the_same():
    logits = torch.zeros(1, 1, N)
    logits[..., :NEAR] = 100.0
    truth = torch.ones(1, N)
    assert cross_entropy(logits, truth).item() == pytest.approx(0.5 * math.log(2), rel=1e-5)


def test_focal_of_an_undecided_pixel_matches_hand_arithmetic():
    inside = focal(torch.zeros(1, 1, N), torch.ones(1, N)).item()
    outside = focal(torch.zeros(1, 1, N), torch.zeros(1, N)).item()
    assert inside == pytest.approx(0.25 * 0.5**2 * math.log(2), rel=1e-5)
    assert outside == pytest.approx(0.75 * 0.5**2 * math.log(2), rel=1e-5)


def test_dice_counts_areas_not_points():
    logits = torch.tensor([[[100.0, 100.0, -100.0]]])
    truth = torch.tensor([[1.0, 0.0, 1.0]])
    area = torch.tensor([[0.3, 0.1, 0.2]])
    # intersection 0.3, prediction 0.4, truth 0.5
    assert dice(logits, truth, area).item() == pytest.approx(1 - 2 * 0.3 / 0.9, rel=1e-4)


def test_iou_at_points_matches_hand_arithmetic():
    logits = torch.tensor([[[1.0, 1.0, -1.0, -1.0]]])
    truth = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    area = torch.tensor([[0.3, 0.1, 0.2, 0.4]])
    assert iou_at(logits, truth, area).item() == pytest.approx(0.3 / 0.6)


def test_predicted_iou_gives_no_gradient_to_the_actual_one():
    actual = torch.tensor([[0.5]], requires_grad=True)
    predicted = torch.tensor([[0.8]], requires_grad=True)
    loss = predicted_iou(predicted, actual).sum()
    loss.backward()
    assert loss.item() == pytest.approx(0.09)
    assert actual.grad is None
    assert predicted.grad.item() == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("loss", "expected"), [(embedding_mse, 4.0), (embedding_l1, 2.0)], ids=["decoupled", "full-stage"]
)
def test_embedding_losses_of_a_constant_difference(loss, expected):
    student = torch.full((2, 3, 4, 4), 3.0, requires_grad=True)
    teacher = torch.full((2, 3, 4, 4), 1.0, requires_grad=True)
    value = loss(student, teacher)
    value.backward()
    assert value.item() == pytest.approx(expected)
    assert teacher.grad is None


def test_token_and_iou_losses_are_means_per_prompt():
    assert token_l1(torch.zeros(2, 5, 8), torch.full((2, 5, 8), 0.5)).tolist() == [0.5, 0.5]
    assert iou_l1(torch.tensor([[0.0, 0.5, 1.0, 0.0]]), torch.zeros(1, 4)).item() == pytest.approx(0.375)


def test_mask_loss_does_not_care_how_sure_the_teacher_is_of_the_background():
    teacher = torch.full((1, 4, 2, 2), -40.0)
    assert mask_l1(torch.full((1, 4, 2, 2), -15.0), teacher).item() == 0
    assert mask_l1(torch.full((1, 4, 2, 2), 15.0), teacher).item() == pytest.approx(27)
    assert mask_l1(torch.full((1, 4, 2, 2), -10.0), teacher).item() == pytest.approx(2)


def test_hard_mask_weight_matches_the_equation():
    weight = hard_mask_weight(torch.tensor([0.5, 0.4, 1.0]), torch.tensor([0.5, 0.8, 0.0]))
    expected = [0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))]
    assert weight.tolist() == pytest.approx(expected, abs=1e-4)


def test_every_answer_to_a_click_gets_a_mask_of_its_own():
    # Loss of masks 1 to 3 (rows) for the answer that was meant and two others (columns).
    losses = torch.tensor([[[1.0, 1.0, 9.0], [2.0, 5.0, 9.0], [9.0, 9.0, 4.0]]])
    second = torch.tensor([1])
    click, both = torch.tensor([False]), torch.tensor([[True, True, True]])
    # Mask 1 suits the first two answers; mask 2 costs less for the first one than for the second:
    # 1/2 * 2 + 1/4 * 1 + 1/4 * 4 = 2.25, against 1/2 * 1 + 1/4 * 5 + 1/4 * 4 = 2.75.
    matched, shown, nearest = 2.25, 2.0, (1 + 2 + 4) / 3
    expected = 0.9 * (0.7 * matched + 0.3 * shown) + 0.1 * nearest
    assert of_three(losses, both, second, click, 0.3).item() == pytest.approx(expected)


def test_a_click_with_one_answer_is_matched_with_its_best_mask():
    losses = torch.tensor([[[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [9.0, 0.0, 0.0]]])
    only, second = torch.tensor([[True, False, False]]), torch.tensor([1])
    expected = 0.9 * (0.7 * 1 + 0.3 * 2) + 0.1 * 12 / 3
    assert of_three(losses, only, second, torch.tensor([False]), 0.3).item() == pytest.approx(expected)
    assert of_three(losses[..., :1], only[:, :1], second, torch.tensor([False]), 0.3).item() == pytest.approx(expected)


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
