"""RepViT as an edge graph: the mathematics of `tinysam.models.repvit` in operations that run well.

What changes against the plain model besides what `tinysam.export.encoder_graph` names, none of it the result:

1. The branches of a token mixer are sums of convolutions over the same cells, and batch norm is affine: 3x3, 1x1 and
   identity become one depthwise 3x3 convolution (Ding et al. 2021, arXiv:2101.03697, RepVGG).
2. Squeeze-and-excitation works on one row of channel means, so its two convolutions are linear layers.
3. Bicubic resizing to twice the side is linear and fixed: one matrix for rows, one for columns. TFLite has no bicubic
   resizing.
"""

# PyTorch types every submodule as "Tensor or Module" and every call of one as Any.
# mypy: disable-error-code="arg-type, assignment, index, operator, union-attr, no-any-return"

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.export.encoder_graph import EncoderGraph, fold_norm, fold_stem, linear
from tinysam.models.layers import ConvNorm
from tinysam.models.repvit import (
    ChannelMixer,
    DoubledProjection,
    DownsamplingBlock,
    ParallelDepthwise,
    RepViT,
    RepViTBlock,
    SqueezeExcite,
)


def fold_branches(mixer: ParallelDepthwise) -> nn.Conv2d:
    """The one depthwise 3x3 convolution that equals all branches of `mixer` and the norm behind them."""
    conv = fold_norm(mixer.conv)
    point = fold_norm(mixer.conv1) if isinstance(mixer.conv1, ConvNorm) else mixer.conv1
    assert isinstance(point, nn.Conv2d) and conv.bias is not None and point.bias is not None
    conv.weight = nn.Parameter(conv.weight.detach() + F.pad(point.weight.detach() + 1, (1, 1, 1, 1)))
    conv.bias = nn.Parameter(conv.bias.detach() + point.bias.detach())
    return conv if isinstance(mixer.bn, nn.Identity) else nn.utils.fuse_conv_bn_eval(conv, mixer.bn)


class EdgeExcite(nn.Module):
    """`SqueezeExcite` with linear layers on (1, C) means."""

    def __init__(self, excite: SqueezeExcite) -> None:
        super().__init__()
        self.fc1, self.fc2 = (linear(conv.weight.flatten(1), conv.bias) for conv in (excite.fc1, excite.fc2))

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.relu(self.fc1(x.mean((2, 3))))).sigmoid()
        return x * gate[:, :, None, None]


class EdgeMixer(nn.Module):
    """`ChannelMixer` with folded norms."""

    def __init__(self, mixer: ChannelMixer) -> None:
        super().__init__()
        self.expand, self.project = fold_norm(mixer.m[0]), fold_norm(mixer.m[2])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.gelu(self.expand(x)))


class EdgeBlock(nn.Module):
    """`RepViTBlock` with its branches folded."""

    def __init__(self, block: RepViTBlock) -> None:
        super().__init__()
        branches, excite = block.token_mixer
        self.depthwise = fold_branches(branches)
        self.excite = EdgeExcite(excite) if isinstance(excite, SqueezeExcite) else nn.Identity()
        self.mixer = EdgeMixer(block.channel_mixer)

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(self.excite(self.depthwise(x)))


class EdgeDownsampling(nn.Module):
    """`DownsamplingBlock` with folded norms."""

    def __init__(self, block: DownsamplingBlock) -> None:
        super().__init__()
        depthwise, _, project = block.token_mixer
        self.depthwise, self.project = fold_norm(depthwise), fold_norm(project)
        self.mixer = EdgeMixer(block.channel_mixer)

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(self.project(self.depthwise(x)))


class EdgeDoubledProjection(nn.Module):
    """`DoubledProjection` for maps of one side: the resizing matrix on the last axis, twice."""

    def __init__(self, projection: DoubledProjection, side: int) -> None:
        super().__init__()
        self.side = side
        (self.project,) = projection.op_list
        unit = torch.eye(side)[None, None]
        # Rows of a unit matrix, resized, are what each cell gives to each cell of the larger map.
        doubled = F.interpolate(unit, (side, 2 * side), mode="bicubic", align_corners=False)
        self.doubled: Tensor
        self.register_buffer("doubled", doubled[0, 0].clone())  # (side, 2 * side)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        channels, side = x.shape[1], self.side
        x = (x.reshape(channels * side, side) @ self.doubled).reshape(channels, side, 2 * side)
        x = (x.transpose(1, 2).reshape(channels * 2 * side, side) @ self.doubled).reshape(channels, 2 * side, 2 * side)
        return x.transpose(1, 2)[None]


class RepViTGraph(EncoderGraph):
    """The edge graph of a RepViT."""

    BLOCKS = ("stem", "stages.*", "last_stage.*", "fuse3", "fuse4", *EncoderGraph.BLOCKS)

    def __init__(self, encoder: RepViT, image_size: int, channels_last: bool) -> None:
        super().__init__(encoder, image_size, channels_last)
        stem, *blocks = encoder.features
        self.stem = fold_stem(stem)
        edge = [EdgeDownsampling(b) if isinstance(b, DownsamplingBlock) else EdgeBlock(b) for b in blocks]
        fourth = encoder.stage_ends[2] - 1
        self.stages = nn.Sequential(*edge[:fourth])
        self.last_stage = nn.Sequential(*edge[fourth:])
        self.fused = encoder.fused
        if encoder.fused:
            self.fuse3 = encoder.fuse_stage2
            self.fuse4 = EdgeDoubledProjection(encoder.fuse_stage3, image_size // 32)

    def features(self, image: Tensor) -> Tensor:
        third = self.stages(self.stem(image))
        fourth = self.last_stage(third)
        return self.fuse3(third) + self.fuse4(fourth) if self.fused else fourth
