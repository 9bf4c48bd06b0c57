import math

import pytest
import torch

from tests.distillation.flat import batch_of, decoded, dice_of
from tinysam.distillation.full_stage import DICE, FOCAL, IOU, MASK, TOKEN, full_stage


def focal_of(logit: float) -> float:
    """Of a pixel of the object."""
    p = 1 / (1 + math.exp(-logit))
    return 0.25 * (1 - p) ** 2 * -math.log(p)


@pytest.mark.parametrize("weigh", [False, True])
def test_the_loss_matches_hand_arithmetic(weigh):
    # On a picture that is all object, the student misses it, is surer than the teacher, is better than the teacher.
    student, teacher = [-1.0, 3.0, 1.0], [1.0, 1.0, -1.0]
    single = torch.tensor([True, False, True])
    loss, iou = full_stage(
        decoded([[logit] * 4 for logit in student], token=0.5, iou=0.75),
        decoded([[logit] * 4 for logit in teacher], token=0.25, iou=0.25),
        batch_of(3),
        single,
        weigh,
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
