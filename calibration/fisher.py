"""What the masks depend on: inputs of every linear layer, and how much the task loss feels an error of its output.

The published search (TinySAM, arXiv:2312.13789, section 3.4; PTQ4ViT, arXiv:2111.12293) weighs the error of a layer's
output by the squared gradient of KL(masks) + KL(predicted IoU) between the float and the quantized model. At the float
model that gradient is zero, so the curvature itself is estimated here: the Hessian of a KL divergence at its minimum is
the Fisher information, the mean squared gradient of the likelihood of labels drawn from the model's own predictions.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.calibration.arrays import Floats
from tinysam.calibration.feeds import Feed
from tinysam.runtime.geometry import LOW_RES_STRIDE

ROWS_PER_IMAGE = 24
"""Rows (positions of a map, or tokens) kept of every layer and photograph."""
IOU_TEMPERATURE = 0.05
"""Predicted IoU become a choice of mask by a softmax with this temperature."""

Linear = nn.Linear | nn.Conv2d


@dataclass
class LayerSamples:
    """Rows of one layer; a convolution is a linear layer on patches, one for each of its groups."""

    inputs: list[Tensor] = field(default_factory=list)
    """(groups, rows, K) each."""
    gradients: list[Tensor] = field(default_factory=list)
    """(groups, rows, N) each: of the task loss, by the layer's output."""

    def stacked(self) -> tuple[Tensor, Tensor]:
        """All rows: (groups, R, K) and (groups, R, N)."""
        return torch.cat(self.inputs, 1), torch.cat(self.gradients, 1)


def weight_matrices(layer: Linear) -> Tensor:
    """(groups, N, K) view of a layer's weight."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return layer.weight.detach().reshape(groups, layer.weight.shape[0] // groups, -1)


def patches(layer: nn.Conv2d, x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """(groups, R, K) inputs of a convolution's output positions; `x` is (1, C, H, W)."""
    (height, width), (down, right) = layer.kernel_size, layer.stride
    top, left = (int(side) for side in layer.padding)
    padded = F.pad(x[0], (left, left, top, top))
    y = (rows * down)[:, None, None] + torch.arange(height)[None, :, None]
    z = (cols * right)[:, None, None] + torch.arange(width)[None, None, :]
    found = padded[:, y, z]  # (C, R, height, width)
    return found.reshape(layer.groups, -1, *found.shape[1:]).transpose(1, 2).flatten(2)


class Recorder:
    """Hooks on all linear layers of some modules, which keep the same random rows of inputs and gradients."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.layers = {
            f"{part}/{name}.weight": layer
            for part, module in modules.items()
            for name, layer in module.named_modules()
            if isinstance(layer, nn.Linear | nn.Conv2d)
        }
        self.samples: dict[str, LayerSamples] = {name: LayerSamples() for name in self.layers}
        self.run, self.rows = 0, ROWS_PER_IMAGE

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records forward and backward passes inside the block."""
        handles = [layer.register_forward_hook(self.hook(name)) for name, layer in self.layers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def hook(self, name: str):  # type: ignore[no-untyped-def]
        """The forward hook of one layer."""

        def record(layer: Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            generator = torch.Generator().manual_seed(zlib.crc32(f"{self.run} {name}".encode()))
            if isinstance(layer, nn.Conv2d):
                width = output.shape[-1]
                some = torch.randperm(output.shape[-2] * width, generator=generator)[: self.rows]
                rows, cols = some // width, some % width
                kept = patches(layer, inputs[0].detach()[:1], rows, cols)
                watch(output, lambda g: self.keep(name, kept, conv_rows(layer, g, rows, cols)))
            else:
                x = inputs[0].detach().flatten(0, -2)
                some = torch.randperm(len(x), generator=generator)[: self.rows]
                watch(output, lambda g: self.keep(name, x[some][None], g.flatten(0, -2)[some][None]))

        return record

    def keep(self, name: str, inputs: Tensor, gradients: Tensor) -> None:
        """Takes in the rows of one run."""
        self.samples[name].inputs.append(inputs.clone())
        self.samples[name].gradients.append(gradients.detach().clone())


def watch(output: Tensor, use: Callable[[Tensor], None]) -> None:
    """Calls `use` with the gradient of a layer's output when it is known."""
    output.register_hook(use)  # type: ignore[no-untyped-call]


def conv_rows(layer: nn.Conv2d, gradient: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """(groups, R, N) of a gradient (1, groups * N, H, W) at some positions."""
    found = gradient[0][:, rows, cols]
    return found.reshape(layer.groups, -1, found.shape[1]).transpose(1, 2)


def drawn_loss(masks: Tensor, iou: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Negative log-likelihood of labels drawn from the predictions: its mean squared gradient is the curvature of
    KL(masks), averaged over pixels, plus KL(predicted IoU).

    Args:
        masks: (P, M, h, w) logits.
        iou: (P, M) predicted IoU.
        size: (height, width) of the photograph inside the model's square.
        generator: of the draw.
    """
    height, width = (max(1, side // LOW_RES_STRIDE) for side in size)
    inside = masks[..., :height, :width]
    labels = torch.bernoulli(inside.detach().sigmoid(), generator=generator)
    pixels = inside.shape[-1] * inside.shape[-2]
    loss: Tensor = F.binary_cross_entropy_with_logits(inside, labels, reduction="sum") / pixels**0.5
    if iou.shape[1] > 1:
        logits = iou / IOU_TEMPERATURE
        choice = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
        loss = loss + F.cross_entropy(logits, choice, reduction="sum")
    return loss


def record_fisher(
    encoder: nn.Module, decoder: nn.Module, runs: Iterable[tuple[Floats, tuple[int, int], list[Feed]]], seed: int
) -> dict[str, LayerSamples]:
    """Samples of every linear layer of both graphs.

    Args:
        encoder: (1, 3, S, S) -> embedding.
        decoder: embedding and the four prompt inputs -> masks and predicted IoU.
        runs: image, its size inside the square, and prompt feeds.
        seed: of rows and labels.

    Returns:
        `encoder/<weight>` and `decoder/<weight>`, named as in the ONNX files.
    """
    recorder = Recorder({"encoder": encoder, "decoder": decoder})
    for number, (image, size, feeds) in enumerate(runs):
        generator = torch.Generator().manual_seed(seed * 65_537 + number)
        recorder.run = number
        with recorder.recording(), torch.enable_grad():
            recorder.rows = ROWS_PER_IMAGE
            # A leaf that needs a gradient: frozen parameters alone would leave nothing to differentiate.
            embedding = encoder(torch.from_numpy(image).requires_grad_())
            losses = []
            recorder.rows = max(1, ROWS_PER_IMAGE // len(feeds))
            for feed in feeds:
                prompts = {name: torch.from_numpy(np.asarray(values)) for name, values in feed.items()}
                prompts["mask_input"] = prompts["mask_input"].clone().requires_grad_()
                masks, iou = decoder(embedding, **prompts)
                losses.append(drawn_loss(masks, iou, size, generator))
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    return recorder.samples
