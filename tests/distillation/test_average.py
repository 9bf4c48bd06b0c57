import pytest
import torch
from torch import nn

from tinysam.distillation.average import Average


def test_the_average_matches_hand_arithmetic():
    model = nn.BatchNorm1d(1)
    average = Average(model, decay=0.2)
    with torch.no_grad():
        model.weight.fill_(3.0)
    model.num_batches_tracked += 5
    average.update(model, 0)
    # Warming up: decay 1 / 10, from 1 to 0.1 * 1 + 0.9 * 3.
    assert average.state["weight"].item() == pytest.approx(2.8)
    assert average.state["num_batches_tracked"].item() == 5
    average.update(model, 1000)
    assert average.state["weight"].item() == pytest.approx(0.2 * 2.8 + 0.8 * 3)
