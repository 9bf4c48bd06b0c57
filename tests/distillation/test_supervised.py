import math

import pytest
import torch

from tests.distillation.flat import batch_of, decoded, dice_of
from tinysam.distillation.supervised import supervised


def test_the_loss_matches_hand_arithmetic():
    logits = [0.5, -1.0, 2.0, 1.0]
    loss, iou = supervised(decoded([logits, logits], iou=0.5), batch_of(2), torch.tensor([True, False]))
    per_mask = [2 * math.log(1 + math.exp(-logit)) + dice_of(logit) for logit in logits]
    best, mean = per_mask[2], sum(per_mask[1:]) / 3
    box = per_mask[0] + 0.5 * best + 0.5 * mean
    click = 0.25 * per_mask[0] + 0.9 * best + 0.1 * mean
    # The IoU are 1, 0, 1, 1: four squared errors of 0.5.
    assert loss.item() == pytest.approx((box + click) / 2 + 1.0, rel=1e-4)
    assert iou.tolist() == [[1, 0, 1, 1]] * 2
