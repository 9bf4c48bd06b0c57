"""TinyViT image encoder (Wu et al. 2022, arXiv:2207.10666) with SAM's neck, as in MobileSAM and TinySAM.

Four stages: inverted-bottleneck convolutions at stride 4, then three stages of window attention at strides
8, 16 and 16. The last merging keeps the resolution, so the embedding grid is the input size / 16.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.models.encoder import ImageEncoder
from tinysam.models.layers import ConvNorm, neck


@dataclass(frozen=True)
class TinyViTSizes:
    """All that tells one TinyViT from another."""

    dims: tuple[int, int, int, int]
    """Channels of each stage."""
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    """Blocks in each stage."""
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    """Attention heads of each stage (the first stage has no attention)."""
    windows: tuple[int, int, int, int] = (7, 7, 14, 7)
    """Side of the attention windows in cells (the first stage has none)."""

    stride: ClassVar[int] = 16
    edge_graph: ClassVar[str] = "tinysam.export.tinyvit_graph:TinyViTGraph"
    unused_keys: ClassVar[tuple[str, ...]] = ("image_encoder.norm_head.", "image_encoder.head.")

    def check_image_size(self, image_size: int) -> None:
        """At multiples of 224 no window needs padding; 1024 is what the official models were trained at."""
        if image_size != 1024 and (image_size <= 0 or image_size % 224):
            raise ValueError(f"image size {image_size}: expected 1024 or a multiple of 224 (448, 672, 896)")

    def build(self, image_size: int) -> "TinyViT":
        """The encoder; its parameters do not depend on the size of the input."""
        return TinyViT(self)


class MBConv(nn.Module):
    """Inverted bottleneck with a residual: 1x1 to 4 times the width, 3x3 depthwise, 1x1 back."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, dim * expansion)
        self.conv2 = ConvNorm(dim * expansion, dim * expansion, 3, groups=dim * expansion)
        self.conv3 = ConvNorm(dim * expansion, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.conv1(x))
        y = F.gelu(self.conv2(y))
        return F.gelu(x + self.conv3(y))


class PatchMerging(nn.Module):
    """Moves to the next stage: 1x1 convolution, depthwise 3x3 with the stride, 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs)
        self.conv2 = ConvNorm(outputs, outputs, 3, stride, groups=outputs)
        self.conv3 = ConvNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class PatchEmbed(nn.Module):
    """Two 3x3 convolutions of stride 2: (B, 3, H, W) -> (B, dim, H/4, W/4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, dim // 2, 3, 2), nn.GELU(), ConvNorm(dim // 2, dim, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


def bias_indexes(window: int) -> Tensor:
    """Which learned bias belongs to each pair of cells of a window: (window**2, window**2) int64.

    LeViT's table: the bias depends on the absolute offset (|dy|, |dx|) only.
    """
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return (y[:, None] - y[None]).abs() * window + (x[:, None] - x[None]).abs()


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with pre-norm and a bias per relative offset.

    The fused `qkv` weight interleaves per head: q, k and v of head 0, then those of head 1, and so on.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.register_buffer("bias_indexes", bias_indexes(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(windows, cells, dim) -> (windows, cells, dim)."""
        n, cells, dim = x.shape
        qkv = self.qkv(self.norm(x)).view(n, cells, self.heads, 3, dim // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        bias = self.attention_biases[:, self.bias_indexes]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.proj(y.transpose(1, 2).reshape(n, cells, dim))


class FeedForward(nn.Module):
    """Pre-norm, linear to 4 times the width, GELU, linear back."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, dim * expansion)
        self.fc2 = nn.Linear(dim * expansion, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class TinyViTBlock(nn.Module):
    """Window attention, depthwise 3x3, feed-forward; NCHW in and out.

    A map that is no multiple of the window is padded with zeros right and below, and the padded cells take part in
    the attention: that is how the official models were trained.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = WindowAttention(dim, heads, window)
        self.mlp = FeedForward(dim)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)

    def attend(self, x: Tensor) -> Tensor:
        """Attention inside windows of a (B, H, W, C) map."""
        b, h, w, c = x.shape
        ws = self.attn.window
        x = F.pad(x, (0, 0, 0, -w % ws, 0, -h % ws))
        rows, cols = x.shape[1] // ws, x.shape[2] // ws
        x = x.view(b, rows, ws, cols, ws, c).transpose(2, 3).reshape(-1, ws * ws, c)
        x = self.attn(x)
        x = x.view(b, rows, cols, ws, ws, c).transpose(2, 3).reshape(b, rows * ws, cols * ws, c)
        return x[:, :h, :w]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x).permute(0, 2, 3, 1)
        return (x + self.mlp(x)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """The blocks of one stage, and the merging into the next one where there is a next one."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(ImageEncoder):
    """Image encoder: (B, 3, S, S) normalized pixels -> (B, embed_dim, S/16, S/16)."""

    def __init__(self, sizes: TinyViTSizes, embed_dim: int = 256) -> None:
        super().__init__(sizes)
        dims = sizes.dims
        self.patch_embed = PatchEmbed(dims[0])
        strides = (2, 2, 1)
        self.layers = nn.ModuleList()
        for i, dim in enumerate(dims):
            blocks: list[nn.Module] = [
                MBConv(dim) if i == 0 else TinyViTBlock(dim, sizes.heads[i], sizes.windows[i])
                for _ in range(sizes.depths[i])
            ]
            merging = PatchMerging(dim, dims[i + 1], strides[i]) if i + 1 < len(dims) else None
            self.layers.append(Stage(blocks, merging))
        self.neck = neck(dims[-1], embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for stage in self.layers:
            x = stage(x)
        return self.neck(x)
