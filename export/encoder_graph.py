"""The image encoder as an edge graph: the plain model's mathematics in operations that run well on devices.

An encoder's kind names its class here (`EncoderSizes.edge_graph`); what every kind shares is in this file:

1. Batch norm is folded into the convolution before it, the affine part of a layer norm into the linear layer after it.
2. Every linear layer sees a 2-D tensor, so that it becomes one Gemm or FullyConnected with its bias.
3. SAM's neck normalizes over the last axis, and the embedding comes out channel-first or channel-last.
"""

from importlib import import_module
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.models.encoder import ImageEncoder
from tinysam.models.layers import ConvNorm, LayerNorm2d


def fold_norm(layer: ConvNorm) -> nn.Conv2d:
    """One convolution equal to the convolution and batch norm of `layer`."""
    return nn.utils.fuse_conv_bn_eval(layer.c, layer.bn)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer with these parameters."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight.detach().clone())
    layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def fold_affine(norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer that takes the normalized input before `norm`'s scale and shift."""
    return linear(weight * norm.weight, bias + weight @ norm.bias)


def fold_stem(stem: nn.Sequential) -> nn.Sequential:
    """The first two convolutions of an encoder, with an activation between them, with folded norms."""
    first, activation, second = stem
    return nn.Sequential(fold_norm(first), activation, fold_norm(second))


class Normalize(nn.Module):
    """Layer normalization over the last axis without scale and shift."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.shape, self.eps = norm.normalized_shape, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.shape, eps=self.eps)


class ChannelNorm(nn.Module):
    """`LayerNorm2d` as a layer norm over the last axis: (B, C, H, W) -> (B, H, W, C)."""

    def __init__(self, norm: LayerNorm2d) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(norm.weight.shape[0], eps=norm.eps)
        self.norm.weight, self.norm.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1))


class EncoderGraph(nn.Module):
    """An encoder for one input size.

    (1, 3, S, S) -> (1, embed_dim, S/16, S/16), or (1, S/16, S/16, embed_dim) with `channels_last`. A kind of encoder
    implements `features` and names its `BLOCKS`.
    """

    BLOCKS: ClassVar[tuple[str, ...]] = ("reduce", "smooth")
    """Modules that INT8 quantizes, or keeps in float, as one: paths in which `*` stands for any one name."""

    def __init__(self, encoder: ImageEncoder, image_size: int, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last
        reduce, norm1, smooth, norm2 = encoder.neck
        self.reduce, self.norm1, self.smooth, self.norm2 = reduce, ChannelNorm(norm1), smooth, ChannelNorm(norm2)

    def features(self, image: Tensor) -> Tensor:
        """(1, 3, S, S) -> (1, C, S/16, S/16), which the neck projects to the embedding."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm1(self.reduce(self.features(image))).permute(0, 3, 1, 2)
        x = self.norm2(self.smooth(x))
        return x if self.channels_last else x.permute(0, 3, 1, 2)


def graph_class(encoder: ImageEncoder) -> type[EncoderGraph]:
    """The edge graph that the encoder's kind names; ValueError for a teacher, which has none."""
    name = encoder.sizes.edge_graph
    if name is None:
        raise ValueError(f"{type(encoder).__name__} has no edge graph: it is a teacher, too large for the edge")
    module, graph = name.split(":")
    found: type[EncoderGraph] = getattr(import_module(module), graph)
    return found


@torch.no_grad()
def encoder_graph(encoder: ImageEncoder, image_size: int, channels_last: bool = False) -> EncoderGraph:
    """The edge graph of `encoder` for square inputs of `image_size` pixels, in evaluation mode."""
    return graph_class(encoder)(encoder.eval(), image_size, channels_last).eval()
