"""SAM's ViT image encoder (Kirillov et al. 2023, arXiv:2304.02643; ViTDet windows, arXiv:2203.16527): the teacher."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.models.encoder import ImageEncoder
from tinysam.models.layers import MLPBlock, neck

PATCH = 16
"""Side of a patch in pixels; also the stride of the embedding grid."""
IMAGE_SIZE = 1024
"""Side of the input in pixels for which the official files have a position embedding."""


@dataclass(frozen=True)
class ViTSizes:
    """All that tells ViT-B, L and H apart."""

    dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    """Indexes of the blocks that attend over the whole image; the others attend within windows."""
    window: int = 14

    stride: ClassVar[int] = PATCH
    edge_graph: ClassVar[None] = None
    unused_keys: ClassVar[tuple[str, ...]] = ()

    def check_image_size(self, image_size: int) -> None:
        """The position embedding of the official files has one side."""
        if image_size != IMAGE_SIZE:
            raise ValueError(f"image size {image_size}: a ViT encoder takes {IMAGE_SIZE} pixels only")

    def build(self, image_size: int) -> "ViT":
        """The encoder with a position embedding for this side."""
        return ViT(self, image_size)


class PatchEmbed(nn.Module):
    """(B, 3, S, S) -> (B, S/16, S/16, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


def relative_positions(side: int, table: Tensor) -> Tensor:
    """Rows of `table` (2 * side - 1, head_dim) for each pair of positions on one axis: (side, side, head_dim)."""
    index = torch.arange(side, device=table.device)
    return table[index[:, None] - index[None] + side - 1]


class Attention(nn.Module):
    """Multi-head self-attention with decomposed relative positions over a square map (B, side, side, dim)."""

    def __init__(self, dim: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))

    def position_bias(self, q: Tensor) -> Tensor:
        """(B, heads, side**2, head_dim) queries -> (B, heads, side**2, side**2) additive bias."""
        b, heads, cells, d = q.shape
        grid = q.view(b, heads, self.side, self.side, d)
        rel_h = torch.einsum("bnhwc,hkc->bnhwk", grid, relative_positions(self.side, self.rel_pos_h))
        rel_w = torch.einsum("bnhwc,wkc->bnhwk", grid, relative_positions(self.side, self.rel_pos_w))
        return (rel_h[..., :, None] + rel_w[..., None, :]).reshape(b, heads, cells, cells)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, dim = x.shape
        q, k, v = self.qkv(x).view(b, h * w, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.position_bias(q))
        return self.proj(y.transpose(1, 2).reshape(b, h, w, dim))


class Block(nn.Module):
    """Pre-norm transformer block on (B, H, W, dim); `window` 0 attends over the whole map."""

    def __init__(self, sizes: ViTSizes, window: int, side: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(sizes.dim, eps=1e-6)
        self.attn = Attention(sizes.dim, sizes.heads, window or side)
        self.norm2 = nn.LayerNorm(sizes.dim, eps=1e-6)
        self.mlp = MLPBlock(sizes.dim, 4 * sizes.dim, nn.GELU)

    def attend(self, x: Tensor) -> Tensor:
        ws = self.window
        if not ws:
            return self.attn(x)
        b, h, w, c = x.shape
        x = F.pad(x, (0, 0, 0, -w % ws, 0, -h % ws))
        rows, cols = x.shape[1] // ws, x.shape[2] // ws
        x = x.view(b, rows, ws, cols, ws, c).transpose(2, 3).reshape(-1, ws, ws, c)
        x = self.attn(x).view(b, rows, cols, ws, ws, c).transpose(2, 3).reshape(b, rows * ws, cols * ws, c)
        return x[:, :h, :w]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(ImageEncoder):
    """Image encoder: (B, 3, S, S) normalized pixels -> (B, embed_dim, S/16, S/16)."""

    def __init__(self, sizes: ViTSizes, image_size: int, embed_dim: int = 256) -> None:
        super().__init__(sizes)
        side = image_size // PATCH
        self.patch_embed = PatchEmbed(sizes.dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, sizes.dim))
        self.blocks = nn.ModuleList(
            Block(sizes, 0 if i in sizes.global_blocks else sizes.window, side) for i in range(sizes.depth)
        )
        self.neck = neck(sizes.dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))
