import math

import pytest
import torch

from tinysam.distillation.rounds import Prompt
from tinysam.distillation.training_log import Tally
from tinysam.models.mask_decoder import Decoded


def test_the_mask_that_a_user_gets_counts_for_its_kind_of_prompt():
    tally = Tally(steps=2, loss=3.0, norm=5.0, waiting=1.0, seconds=4.0)
    prompt = Prompt(torch.zeros(3, 2, 2), torch.zeros(3, 2), None, torch.tensor([True, False, True]))
    predicted = torch.tensor([[0.9, 0.1, 0.3, 0.2]] * 3)
    iou = torch.tensor([[0.9, 0.0, 0.4, 0.0], [1.0, 0.0, 0.5, 0.0], [0.3, 0.0, 0.8, 0.0]])
    tally.masks(0, prompt, Decoded(torch.zeros(3, 4, 8, 8), predicted, torch.zeros(3, 5, 8)), iou)
    means = tally.means()
    assert means["iou_box"] == pytest.approx(0.6)
    assert means["iou_click"] == pytest.approx(0.5)
    assert math.isnan(means["iou_further"])
    assert (means["loss"], means["norm"], means["loading_share"]) == (1.5, 2.5, 0.25)
