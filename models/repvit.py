"""RepViT image encoder (Wang et al. 2023, arXiv:2307.09283) with SAM's neck, as in EdgeSAM and RepViT-SAM.

1. Two 3x3 convolutions of stride 2 bring the image to stride 4.
2. Four stages of blocks. A block mixes cells by a depthwise 3x3 convolution with branches beside it, some of them
   weigh the channels by squeeze-and-excitation, and an inverted bottleneck mixes channels. The first block of a stage
   (but of the first one) is a downsampling block.
3. RepViT-SAM keeps the third stage's resolution in the fourth, so that the embedding is at stride 16. EdgeSAM (Zhou et
   al. 2023, arXiv:2312.06660) goes to stride 32, and adds the fourth stage, doubled by bicubic resizing, to the third.
4. SAM's neck.

Attribute names are the keys of the official checkpoints.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.models.encoder import ImageEncoder
from tinysam.models.layers import ConvNorm, neck

FUSED_CHANNELS = 256
"""Width in which the last two stages are added."""


@dataclass(frozen=True)
class RepViTSizes:
    """All that tells one RepViT from another."""

    dims: tuple[int, int, int, int]
    """Channels of each stage."""
    depths: tuple[int, int, int, int]
    """Blocks of each stage, the downsampling one included."""
    fused: bool
    """Whether the embedding is the sum of the third stage and the fourth at twice its resolution."""
    norms: Literal["branches", "sum"]
    """Where the batch norms of a token mixer are: in both of its branches, or in one of them and behind their sum."""

    stride: ClassVar[int] = 16
    edge_graph: ClassVar[str] = "tinysam.export.repvit_graph:RepViTGraph"
    unused_keys: ClassVar[tuple[str, ...]] = ()

    def check_image_size(self, image_size: int) -> None:
        """Every stage has to halve the side exactly."""
        coarsest = 2 * self.stride if self.fused else self.stride
        if image_size <= 0 or image_size % coarsest:
            raise ValueError(f"image size {image_size}: expected a multiple of {coarsest}")

    def build(self, image_size: int) -> "RepViT":
        """The encoder; its parameters do not depend on the size of the input."""
        return RepViT(self)


class ParallelDepthwise(nn.Module):
    """Depthwise 3x3, depthwise 1x1 and identity side by side, as trained; they fold into one convolution."""

    def __init__(self, dim: int, norms: Literal["branches", "sum"]) -> None:
        super().__init__()
        self.conv = ConvNorm(dim, dim, 3, groups=dim)
        if norms == "branches":
            self.conv1: nn.Module = ConvNorm(dim, dim, groups=dim)
            self.bn: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(dim, dim, 1, groups=dim)
            self.bn = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x) + self.conv1(x) + x)


class SqueezeExcite(nn.Module):
    """Weighs channels by a gate made of their means (Hu et al. 2018, arXiv:1709.01507); ReLU between its layers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(8, (dim // 4 + 4) // 8 * 8)  # a quarter of the channels, rounded to a multiple of 8
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class ChannelMixer(nn.Module):
    """Inverted bottleneck of 1x1 convolutions to twice the width, with a residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.m = nn.Sequential(ConvNorm(dim, 2 * dim), nn.GELU(), ConvNorm(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.m(x)


class RepViTBlock(nn.Module):
    """Mixes cells, then channels, at one resolution."""

    def __init__(self, dim: int, excite: bool, norms: Literal["branches", "sum"]) -> None:
        super().__init__()
        self.token_mixer = nn.Sequential(ParallelDepthwise(dim, norms), SqueezeExcite(dim) if excite else nn.Identity())
        self.channel_mixer = ChannelMixer(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_mixer(self.token_mixer(x))


class DownsamplingBlock(nn.Module):
    """Moves to the next stage's resolution and width, then mixes channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.token_mixer = nn.Sequential(
            ConvNorm(inputs, inputs, 3, stride, groups=inputs), nn.Identity(), ConvNorm(inputs, outputs)
        )
        self.channel_mixer = ChannelMixer(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_mixer(self.token_mixer(x))


class DoubledProjection(nn.Module):
    """1x1 convolution, then bicubic resizing to twice the side (Keys 1981, a = -0.75)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.op_list = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.op_list(x), scale_factor=2, mode="bicubic", align_corners=False)


class RepViT(ImageEncoder):
    """Image encoder: (B, 3, S, S) normalized pixels -> (B, embed_dim, S/16, S/16)."""

    def __init__(self, sizes: RepViTSizes, embed_dim: int = 256) -> None:
        super().__init__(sizes)
        first, *_, last = sizes.dims
        stem = nn.Sequential(ConvNorm(3, first // 2, 3, 2), nn.GELU(), ConvNorm(first // 2, first, 3, 2))
        self.features = nn.ModuleList([stem])
        self.stage_ends: list[int] = []
        width = first
        for stage, (dim, depth) in enumerate(zip(sizes.dims, sizes.depths, strict=True)):
            if stage:
                stride = 1 if stage == 3 and not sizes.fused else 2
                self.features.append(DownsamplingBlock(width, dim, stride))
            same = depth - (stage > 0)
            for i in range(same):  # every second block weighs channels, but the last never does
                self.features.append(RepViTBlock(dim, i % 2 == 0 and i < same - 1, sizes.norms))
            self.stage_ends.append(len(self.features))
            width = dim
        if sizes.fused:
            self.fuse_stage2 = nn.Conv2d(sizes.dims[2], FUSED_CHANNELS, 1, bias=False)
            self.fuse_stage3 = DoubledProjection(last, FUSED_CHANNELS)
        self.fused = sizes.fused
        self.neck = neck(FUSED_CHANNELS if sizes.fused else last, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        fourth = self.stage_ends[2]
        for block in self.features[:fourth]:
            x = block(x)
        third_stage = x
        for block in self.features[fourth:]:
            x = block(x)
        if self.fused:
            x = self.fuse_stage2(third_stage) + self.fuse_stage3(x)
        return self.neck(x)
