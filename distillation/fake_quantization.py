"""Fake quantization of the encoder: training that knows what INT8 rounds (Jacob et al. 2018, arXiv:1712.05877).

1. Weights of convolutions and linear layers: 8 bits, symmetric, one scale for each output channel,

       s = max|w| / 127,  w' = s round(w / s)

   Batch norm, which the exporter folds into the convolution before it, scales whole output channels: it changes s, not
   the rounding.
2. Their inputs: 8 bits, one scale and zero point for the tensor, from the smallest to the largest value of the batch,

       s = (max - min) / 255,  z = round(-min / s),  x' = s (clamp(round(x / s) + z, 0, 255) - z)

3. In the bottlenecks of TinyViT's convolutional stage also what GELU reads, which ONNX Runtime computes from integers.
4. Straight-through: gradients pass as if nothing had been rounded.

Softmax, layer norm and residual sums stay in float, as in the exported files, and so do the convolutions that are float
in both engines (`tinysam.calibration.operations`): those that read the photograph, TinyViT's mergings, and depthwise
ones of the residual stream. Ranges are the batch's own, so that nothing has to be stored and a resumed run continues
exactly.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.models.layers import ConvNorm
from tinysam.models.tinyvit import MBConv, PatchEmbed, PatchMerging, TinyViTBlock

SMALLEST = 1e-8
"""Least scale: a channel or tensor of zeros stays zero."""


def round_weights(weight: Tensor) -> Tensor:
    """(outputs, ...) rounded for each output channel; the gradient is that of the input."""
    with torch.no_grad():
        scale = weight.abs().flatten(1).amax(1).clamp(min=127 * SMALLEST) / 127
        scale = scale.view(-1, *[1] * (weight.ndim - 1))
        error = scale * (weight / scale).round() - weight
    return weight + error


def round_activations(x: Tensor) -> Tensor:
    """Any shape, rounded with one scale for all; the gradient is that of the input."""
    with torch.no_grad():
        exact = x.float()
        low, high = exact.amin().clamp(max=0), exact.amax().clamp(min=0)
        scale = (high - low).clamp(min=255 * SMALLEST) / 255
        zero = (-low / scale).round()
        error = scale * ((exact / scale).round().add(zero).clamp(0, 255) - zero) - exact
    return x + error.to(x.dtype)


class RoundedConv2d(nn.Conv2d):
    """A convolution that computes with rounded weights and inputs."""

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self._conv_forward(round_activations(input), round_weights(self.weight), self.bias)
        return output


class RoundedLinear(nn.Linear):
    """A linear layer that computes with rounded weights and inputs."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(round_activations(input), round_weights(self.weight), self.bias)


class RoundedResult(ConvNorm):
    """A convolution and its batch norm, whose result is rounded."""

    def forward(self, x: Tensor) -> Tensor:
        return round_activations(super().forward(x))


def float_modules(encoder: nn.Module) -> set[nn.Module]:
    """Modules that are float in the files of both engines."""
    kept: list[nn.Module] = []
    for module in encoder.modules():
        if isinstance(module, PatchEmbed | PatchMerging):
            kept.append(module)
        elif isinstance(module, TinyViTBlock):
            kept.append(module.local_conv)
    return {module for part in kept for module in part.modules()}


def fake_quantize(encoder: nn.Module) -> None:
    """Makes convolutions and linear layers round that are integer in a file; parameters and their names stay."""
    kept = float_modules(encoder)
    for module in encoder.modules():
        if type(module) is nn.Conv2d and module not in kept:
            module.__class__ = RoundedConv2d
        elif type(module) is nn.Linear:
            module.__class__ = RoundedLinear
        elif isinstance(module, MBConv):
            module.conv1.__class__ = module.conv2.__class__ = RoundedResult
