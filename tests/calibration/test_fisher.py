"""Samples of layers and gradients against PyTorch's own convolution and autograd."""

import numpy as np
import pytest
import torch
from torch import nn

from tinysam.calibration.fisher import Recorder, drawn_loss, patches, record_fisher, weight_matrices


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 10, 3, 1, 1),
        nn.Conv2d(6, 10, 3, 2, 1),
        nn.Conv2d(6, 6, 3, 2, 1, groups=6),
        nn.Conv2d(6, 4, 1),
        nn.Conv2d(6, 4, 2, 2),
    ],
)
def test_patches_times_weights_are_the_convolution(layer: nn.Conv2d) -> None:
    x = torch.randn(1, 6, 9, 11, generator=torch.Generator().manual_seed(0))
    output = layer(x)
    rows, cols = torch.tensor([0, 1, output.shape[2] - 1]), torch.tensor([0, 2, output.shape[3] - 1])
    found = patches(layer, x, rows, cols) @ weight_matrices(layer).transpose(1, 2)
    flat = found.transpose(1, 2).flatten(0, 1) + layer.bias[:, None]  # (channels, positions)
    torch.testing.assert_close(flat, output[0][:, rows, cols], atol=1e-5, rtol=1e-5)


def test_recorded_gradients_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    recorder = Recorder({"part": module})
    x = torch.randn(4, 5)
    with recorder.recording():
        module(x).square().sum().backward()
    inputs, gradients = recorder.samples["part/2.weight"].stacked()
    torch.testing.assert_close(gradients, 2 * module[2](inputs[0])[None])  # d(y^2)/dy, in whatever order of rows
    assert inputs.shape == (1, 4, 7)


def test_mean_squared_gradient_is_the_curvature_of_the_divergence() -> None:
    logit = torch.tensor([[[[0.7]]]])
    generator = torch.Generator().manual_seed(0)
    squares = []
    for _ in range(3000):
        leaf = logit.clone().requires_grad_()
        drawn_loss(leaf, torch.zeros(1, 1), (4, 4), generator).backward()
        squares.append(float(leaf.grad.square()))
    p = float(logit.sigmoid())
    assert np.mean(squares) == pytest.approx(p * (1 - p), rel=0.05)  # second derivative of KL by the logit


def test_both_graphs_are_recorded_with_their_own_rows() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 4, 4)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.conv(image)

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 2)

        def forward(self, embedding: torch.Tensor, mask_input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            masks = self.head(embedding.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) + mask_input.mean()
            return masks, masks.mean((2, 3))

    rng = np.random.default_rng(0)
    images = [rng.standard_normal((1, 3, 32, 32)).astype(np.float32) for _ in range(3)]
    feeds = [{"mask_input": np.zeros((1, 1, 8, 8), np.float32)}] * 2
    samples = record_fisher(Encoder(), Decoder(), [(image, (32, 32), feeds) for image in images], seed=0)
    encoder, decoder = (samples[name].stacked() for name in ("encoder/conv.weight", "decoder/head.weight"))
    assert [tuple(t.shape) for t in encoder] == [(1, 72, 48), (1, 72, 8)]
    assert [tuple(t.shape) for t in decoder] == [(1, 72, 8), (1, 72, 2)]
    assert all(float(gradients.abs().sum()) > 0 for _, gradients in (encoder, decoder))
