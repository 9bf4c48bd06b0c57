import math

import pytest
import torch

from tests.distillation.flat import batch_of, decoded, dice_of
from tinysam.distillation.supervised import supervised


def test_the_loss_matches_hand_arithmetic():
    logits = [0.5, -1.0, 2.0, 1.0]
    loss, iou = supervised(
        decoded([logits, logits], iou=[0.5, 0.5, 0.25, 0.75]), batch_of(2), torch.tensor([True, False])
    )
    per_mask = [0.5 * math.log(1 + math.exp(-logit)) + 2 * dice_of(logit) for logit in logits]
    best, shown, mean = per_mask[2], per_mask[3], sum(per_mask[1:]) / 3
    box = per_mask[0] + 0.2 * best + 0.3 * shown + 0.5 * mean
    click = 0.25 * per_mask[0] + 0.6 * best + 0.3 * shown + 0.1 * mean
    squares = 0.5**2 + 0.5**2 + 0.75**2 + 0.25**2
    assert loss.item() == pytest.approx((box + click) / 2 + squares, rel=1e-4)
    assert iou.tolist() == [[1, 0, 1, 1]] * 2
