import torch

from tests.distillation.flat import batch_of
from tinysam.distillation.device import images
from tinysam.models import normalize


def test_the_padding_is_zero_after_normalization():
    batch = batch_of(1)
    batch.pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    batch.shown = torch.tensor([[8, 5], [3, 8]])
    x = images(batch)
    expected = normalize(batch.pixels.float())
    assert torch.equal(x[0, :, :, :5], expected[0, :, :, :5])
    assert torch.equal(x[1, :, :3], expected[1, :, :3])
    assert not x[0, :, :, 5:].any()
    assert not x[1, :, 3:].any()
