"""TinyViT as an edge graph: the mathematics of `tinysam.models.tinyvit` in operations that run well.

What changes against the plain model besides what `tinysam.export.encoder_graph` names, none of it the result:

1. The fused q/k/v weight, interleaved per head, becomes three; the attention scale is folded into q.
2. The attention bias is gathered from its table once.
3. Windows are cut with tensors of at most four different axes, which converters handle reliably, and at the border to
   the cells that are there (`tinysam.export.windows`).
4. Between the convolutions there are only tensors of two axes, rows of channels. A square map whose side equals its
   number of channels (128 in TinyViT-5M at 1024) would leave a converter to guess which axis is which.
"""

# PyTorch types every submodule as "Tensor or Module" and every call of one as Any.
# mypy: disable-error-code="arg-type, assignment, index, operator, union-attr, no-any-return"

from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.export.encoder_graph import EncoderGraph, Normalize, fold_affine, fold_norm, fold_stem, linear
from tinysam.export.windows import Region, cut, join, regions, split, together
from tinysam.models.tinyvit import MBConv, PatchMerging, TinyViT, TinyViTBlock, WindowAttention


class EdgeMBConv(nn.Module):
    """`MBConv` with folded norms."""

    def __init__(self, block: MBConv) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = (fold_norm(c) for c in (block.conv1, block.conv2, block.conv3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.depthwise(F.gelu(self.expand(x))))
        return F.gelu(x + self.project(y))


class EdgeMerging(nn.Module):
    """`PatchMerging` with folded norms."""

    def __init__(self, merging: PatchMerging) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = (
            fold_norm(c) for c in (merging.conv1, merging.conv2, merging.conv3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.project(F.gelu(self.depthwise(F.gelu(self.expand(x)))))


class EdgeAttention(nn.Module):
    """`WindowAttention` on the (cells, dim) rows of all windows, region after region; norm included."""

    def __init__(self, attention: WindowAttention, parts: list[Region]) -> None:
        super().__init__()
        self.heads, self.parts = attention.heads, parts
        dim = attention.proj.in_features
        self.head_dim = dim // self.heads
        self.norm = Normalize(attention.norm)
        weight = attention.qkv.weight.view(self.heads, 3, self.head_dim, dim)
        bias = attention.qkv.bias.view(self.heads, 3, self.head_dim)
        scales = (self.head_dim**-0.5, 1.0, 1.0)
        self.q, self.k, self.v = (
            fold_affine(attention.norm, weight[:, i].reshape(dim, dim) * s, bias[:, i].reshape(dim) * s)
            for i, s in enumerate(scales)
        )
        self.proj = linear(attention.proj.weight, attention.proj.bias)
        full = attention.attention_biases[:, attention.bias_indexes].detach()
        for i, part in enumerate(parts):
            self.register_buffer(bias_name(i), part.bias(full))

    def heads_of(self, rows: Tensor, part: Region) -> Tensor:
        """(windows * cells, dim) -> (windows, heads, cells, head_dim)."""
        return rows.reshape(-1, part.cells, self.heads, self.head_dim).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, part: Region, bias: Tensor) -> Tensor:
        """Attention inside the windows of one region; (windows * cells, dim) rows."""
        q, k, v = (self.heads_of(rows, part) for rows in (q, k, v))
        y = (q @ k.transpose(2, 3) + bias).softmax(-1) @ v
        return y.transpose(1, 2).reshape(-1, self.heads * self.head_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        made = (split(layer(x), self.parts) for layer in (self.q, self.k, self.v))
        found = [
            self.attend(q, k, v, part, self.get_buffer(bias_name(i)))
            for i, (part, q, k, v) in enumerate(zip(self.parts, *made, strict=True))
        ]
        return self.proj(together(found))


def bias_name(region: int) -> str:
    """Name of the buffer with a region's attention bias; `bias` alone where windows divide the map."""
    return f"bias{region}" if region else "bias"


def to_rows(x: Tensor) -> Tensor:
    """(1, C, H, W) -> (H * W, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def to_map(rows: Tensor, side: int) -> Tensor:
    """(side * side, C) -> (1, C, side, side)."""
    return rows.reshape(1, side, side, rows.shape[1]).permute(0, 3, 1, 2)


class EdgeBlock(nn.Module):
    """`TinyViTBlock` on (side * side, C) rows."""

    def __init__(self, block: TinyViTBlock, side: int) -> None:
        super().__init__()
        self.side, self.parts = side, regions(side, block.attn.window)
        self.attention = EdgeAttention(block.attn, self.parts)
        self.local_conv = fold_norm(block.local_conv)
        self.norm = Normalize(block.mlp.norm)
        self.fc1 = fold_affine(block.mlp.norm, block.mlp.fc1.weight, block.mlp.fc1.bias)
        self.fc2 = linear(block.mlp.fc2.weight, block.mlp.fc2.bias)

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows + join(self.attention(cut(rows, self.parts, self.side)), self.parts, self.side)
        rows = to_rows(self.local_conv(to_map(rows, self.side)))
        return rows + self.fc2(F.gelu(self.fc1(self.norm(rows))))


class TinyViTGraph(EncoderGraph):
    """The edge graph of a TinyViT."""

    BLOCKS = ("patch_embed", "convolutions.*", "mergings.*", "stages.*.*", *EncoderGraph.BLOCKS)

    def __init__(self, encoder: TinyViT, image_size: int, channels_last: bool) -> None:
        super().__init__(encoder, image_size, channels_last)
        self.patch_embed = fold_stem(encoder.patch_embed.seq)
        convolutions, *stages = encoder.layers
        self.convolutions = nn.Sequential(*(EdgeMBConv(block) for block in convolutions.blocks))
        self.mergings = nn.ModuleList(EdgeMerging(s.downsample) for s in (convolutions, *stages[:-1]))
        self.sides = (image_size // 8, image_size // 16, image_size // 16)
        self.stages = nn.ModuleList(
            nn.Sequential(*(EdgeBlock(block, side) for block in stage.blocks))
            for stage, side in zip(stages, self.sides, strict=True)
        )

    def features(self, image: Tensor) -> Tensor:
        x = self.convolutions(self.patch_embed(image))
        for merging, stage, side in zip(self.mergings, self.stages, self.sides, strict=True):
            x = to_map(stage(to_rows(merging(x))), side)
        return x
