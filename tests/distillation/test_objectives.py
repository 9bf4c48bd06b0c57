import math

import pytest
import torch

from tests.distillation.flat import batch_of, decoded, dice_of
from tinysam.distillation.losses import TINY
from tinysam.distillation.objectives import DICE, FOCAL, IOU, MASK, TOKEN, full_stage, shown_of_three, supervised


def test_the_supervised_loss_matches_hand_arithmetic():
    logits = [0.5, -1.0, 2.0, 1.0]
    loss, iou = supervised(
        decoded([logits, logits], iou=[0.5, 0.5, 0.25, 0.75]), batch_of(2), torch.tensor([True, False]), 0.3
    )
    per_mask = [0.5 * math.log(1 + math.exp(-logit)) + 2 * dice_of(logit) for logit in logits]
    best, shown, mean = per_mask[2], per_mask[3], sum(per_mask[1:]) / 3
    box = per_mask[0] + 0.35 * best + 0.15 * shown + 0.5 * mean
    click = 0.25 * per_mask[0] + 0.63 * best + 0.27 * shown + 0.1 * mean
    squares = 0.5**2 + 0.5**2 + 0.75**2 + 0.25**2
    assert loss.item() == pytest.approx((box + click) / 2 + squares, rel=1e-4)
    assert iou.tolist() == [[1, 0, 1, 1]] * 2


def test_masks_are_matched_with_the_other_answers_to_a_click_but_not_to_a_box():
    batch, single = batch_of(2), torch.tensor([True, False])
    three_right = decoded([[9.0, 9.0, -9.0, 9.0]] * 2, iou=1.0)
    alone, _ = supervised(three_right, batch, single, 0.0)
    batch.others[:, 0] = False
    answered, _ = supervised(three_right, batch, single, 0.0)
    p = 1 / (1 + math.exp(9))
    missed = 0.5 * math.log(1 + math.exp(9)) + 2 * dice_of(-9)
    empty = 0.5 * math.log(1 + math.exp(-9)) + 2 * (1 - TINY / (p + TINY))
    # Mask 2 is to be the empty answer, which is half of what is matched, instead of being the farthest from the truth.
    click = 0.9 * 0.5 * empty - 0.1 * (missed - empty) / 3
    assert (answered - alone).item() == pytest.approx(click / 2, abs=1e-3)


def test_the_mask_that_a_user_would_get_follows_the_variants_rule():
    # Mask 1 promises most, but no pixel of it is above the logit of a clear mask.
    answer = decoded([[9.0, 0.5, 9.0, 9.0]], iou=[0.9, 0.8, 0.7, 0.1])
    assert shown_of_three(answer, "single").tolist() == [0]
    assert shown_of_three(answer, "steady").tolist() == [1]


def focal_of(logit: float) -> float:
    """Of a pixel of the object."""
    p = 1 / (1 + math.exp(-logit))
    return 0.25 * (1 - p) ** 2 * -math.log(p)


@pytest.mark.parametrize("weigh", [False, True])
def test_the_full_stage_loss_matches_hand_arithmetic(weigh):
    # On a picture that is all object, the student misses it, is surer than the teacher, is better than the teacher.
    student, teacher = [-1.0, 3.0, 1.0], [1.0, 1.0, -1.0]
    single = torch.tensor([True, False, True])
    loss, iou = full_stage(
        decoded([[logit] * 4 for logit in student], token=0.5, iou=0.75),
        decoded([[logit] * 4 for logit in teacher], token=0.25, iou=0.25),
        batch_of(3),
        single,
        weigh,
        0.3,
    )
    # IoU of the teacher with the truth 1, 1, 0, of the student 0, 1, 1.
    hardness = [1.0, 0.5, 1 / (1 + math.e)] if weigh else [1.0] * 3
    truth = [FOCAL * focal_of(logit) + DICE * dice_of(logit) for logit in student]
    per_prompt = [
        TOKEN * 0.25 + MASK * h * 2 + t * (2 if alone else 1) + IOU * 0.5
        for h, t, alone in zip(hardness, truth, single.tolist(), strict=True)
    ]
    assert loss.item() == pytest.approx(sum(per_prompt) / 3, rel=1e-4)
    assert iou[:, 0].tolist() == [0, 1, 1]
