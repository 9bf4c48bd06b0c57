"""The decoder's attention as an edge graph: projections of the image's cells move to the tokens.

Of a textbook decoder's work, over 80 % are linear layers over every image cell, repeated for every prompt. They go away
by associativity, because the tokens are few (T = 7 for a click) and the cells are many (L = 4096 at 1024 pixels):

* Attention from tokens to image: the scores `q_h . (W_k x)` are `(W_k^T q_h) . x`, so the key projection of L cells
  becomes one of H * T token vectors. Its bias adds the same to every cell, and softmax ignores it. The value projection
  moves behind the weighted sum in the same way.
* Attention from image to tokens: the query projection moves to the tokens likewise, and the output projection is
  applied to the H * T value vectors before the sum over tokens.
* Softmax over the tokens of a cell is written out, along the cells: engines are slow at rows of T numbers.

In the first layer the cells of prompts without a mask are the photograph's own. Where many prompts ask about one
photograph, `ImageProjections` projects its cells once, as in the textbook, and a prompt multiplies d = 16 numbers for
each head and cell instead of 256. Both ways have the tokens' projections in common.

H * T vectors of width `dim` replace L vectors twice: 59 million multiplications instead of 134 million for each
projection of TinyViT-5M at 1024 and one click, and no per-head transposes of image-sized tensors at all.
"""

# PyTorch types every submodule as "Tensor or Module" and every call of one as Any.
# mypy: disable-error-code="arg-type, assignment, index, operator, union-attr, no-any-return"

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.export.encoder_graph import linear
from tinysam.models.transformer import Attention, TwoWayBlock, TwoWayTransformer


def rows(layer: nn.Linear, x: Tensor) -> Tensor:
    """Applies a linear layer to a 2-D view of (P, T, inputs), so that it becomes one Gemm with its bias."""
    prompts, tokens, inputs = x.shape
    return layer(x.reshape(prompts * tokens, inputs)).reshape(prompts, tokens, layer.out_features)


class TokenAttention(nn.Module):
    """Self-attention among the tokens of each prompt, (P, T, dim) -> (P, T, dim)."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        scale = (attention.q_proj.out_features // attention.heads) ** -0.5
        self.q = linear(attention.q_proj.weight * scale, attention.q_proj.bias * scale)
        self.k, self.v, self.out = attention.k_proj, attention.v_proj, attention.out_proj

    def split(self, x: Tensor) -> Tensor:
        """(P, T, inner) -> (P, heads, T, inner / heads)."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, q: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
        """Queries and keys come from `q`; `hidden` (P, 1, 1, T) is added to the scores."""
        scores = self.split(rows(self.q, q)) @ self.split(rows(self.k, q)).transpose(2, 3) + hidden
        y = scores.softmax(-1) @ self.split(rows(self.v, v))
        return rows(self.out, y.transpose(1, 2).reshape(v.shape))


class PerHead(nn.Module):
    """A linear map of its own for every head: (P, heads * T, inputs) -> (P, heads * T, outputs)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.heads = weight.shape[0]
        self.weight = nn.Parameter(weight.detach()[None].clone())  # (1, heads, inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        prompts, rows, inputs = x.shape
        y = x.reshape(prompts, self.heads, rows // self.heads, inputs) @ self.weight
        return y.reshape(prompts, rows, self.weight.shape[3])


def by_head(weight: Tensor, heads: int) -> Tensor:
    """(inner, dim) weight of a projection -> (heads, inner / heads, dim)."""
    return weight.reshape(heads, -1, weight.shape[1])


class HeadRows(nn.Module):
    """A projection whose heads become rows: (P, T, dim) -> (P, heads * T, inner / heads)."""

    def __init__(self, weight: Tensor, bias: Tensor, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.proj = linear(weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        prompts, tokens, _ = x.shape
        y = rows(self.proj, x).reshape(prompts, tokens, self.heads, -1).transpose(1, 2)
        return y.reshape(prompts, self.heads * tokens, y.shape[3])


class Projected(NamedTuple):
    """A photograph's L cells as the first layer takes them."""

    cells: Tensor
    """(1, L, dim)."""
    keys: Tensor
    """(1, heads, d, L) of the attention from tokens to image."""
    values: Tensor
    """(1, heads, L, d) of the same."""
    queries: Tensor
    """(1, heads, d, L) of the attention from image to tokens."""


class TokenToImage(nn.Module):
    """Attention from (P, T, dim) tokens to (P, L, dim) cells with the cells' projections moved to the tokens."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        heads = attention.heads
        scale = (attention.q_proj.out_features // heads) ** -0.5
        self.q = HeadRows(attention.q_proj.weight * scale, attention.q_proj.bias * scale, heads)
        self.heads = heads
        self.to_cells = PerHead(by_head(attention.k_proj.weight, heads))
        self.from_cells = PerHead(by_head(attention.v_proj.weight, heads).transpose(1, 2))
        out = attention.out_proj
        self.out = linear(out.weight, out.bias + out.weight @ attention.v_proj.bias)

    def forward(self, q: Tensor, keys: Tensor, cells: Tensor, image: Projected | None = None) -> Tensor:
        """`keys` are the cells with their positions; with `image` neither is read."""
        prompts, tokens, _ = q.shape
        queries = self.q(q)
        if image is None:
            scores = self.to_cells(queries) @ keys.transpose(1, 2)
            seen = self.from_cells(scores.softmax(-1) @ cells)
        else:
            scores = queries.reshape(prompts, self.heads, tokens, -1) @ image.keys
            seen = scores.softmax(-1) @ image.values
        seen = seen.reshape(prompts, self.heads, tokens, -1).transpose(1, 2)
        return rows(self.out, seen.reshape(prompts, tokens, -1))


class ImageToToken(nn.Module):
    """Attention from (P, L, dim) cells to (P, T, dim) tokens with the cells' projections moved to the tokens."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        heads = attention.heads
        scale = (attention.q_proj.out_features // heads) ** -0.5
        self.heads = heads
        self.k = HeadRows(attention.k_proj.weight * scale, attention.k_proj.bias * scale, heads)
        self.v = HeadRows(attention.v_proj.weight, attention.v_proj.bias, heads)
        query = by_head(attention.q_proj.weight, heads)
        query_bias = attention.q_proj.bias.reshape(heads, -1, 1)
        self.to_cells = PerHead(torch.cat([query, query_bias], dim=2))
        self.out = PerHead(by_head(attention.out_proj.weight.T, heads))
        # A head's weights of the tokens sum to 1, so what every value vector gets, every cell gets.
        self.bias = nn.Parameter(attention.out_proj.bias.detach() / heads)

    def forward(
        self, queries: Tensor, keys: Tensor, tokens: Tensor, hidden: Tensor, image: Projected | None = None
    ) -> Tensor:
        """`hidden` (P, 1, 1, T) is added to the scores; with `image` the `queries` are not read."""
        prompts, count, dim = tokens.shape
        rows = self.k(keys)
        if image is None:
            rows = self.to_cells(rows)  # (P, heads * T, dim + 1): the last column is the bias of the score
            bias = rows[:, :, dim:].reshape(prompts, self.heads, -1, 1) + hidden.transpose(2, 3)
            scores = (rows[:, :, :dim] @ queries.transpose(1, 2)).reshape(prompts, self.heads, count, -1)
        else:
            bias = hidden.transpose(2, 3)
            scores = rows.reshape(prompts, self.heads, count, -1) @ image.queries
        scores = scores + bias
        grown = (scores - scores.amax(dim=2, keepdim=True)).exp()
        weights = (grown / grown.sum(dim=2, keepdim=True)).reshape(prompts, self.heads * count, -1)
        return weights.transpose(1, 2) @ (self.out(self.v(tokens)) + self.bias)


class EdgeTwoWayBlock(nn.Module):
    """`TwoWayBlock` with reordered attention."""

    def __init__(self, block: TwoWayBlock) -> None:
        super().__init__()
        self.first = block.first
        self.self_attn = TokenAttention(block.self_attn)
        self.token_to_image = TokenToImage(block.cross_attn_token_to_image)
        self.image_to_token = ImageToToken(block.cross_attn_image_to_token)
        self.mlp = block.mlp
        self.norm1, self.norm2, self.norm3, self.norm4 = block.norm1, block.norm2, block.norm3, block.norm4

    def forward(
        self,
        tokens: Tensor,
        cells: Tensor,
        token_pe: Tensor,
        cell_pe: Tensor,
        hidden: Tensor,
        image: Projected | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`image`: the projected `cells`, if they are those of a photograph."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, hidden)
        else:
            tokens = tokens + self.self_attn(tokens + token_pe, tokens, hidden)
        tokens = self.norm1(tokens)
        keys = cells + cell_pe
        tokens = self.norm2(tokens + self.token_to_image(tokens + token_pe, keys, cells, image))
        hidden_layer = F.relu(rows(self.mlp.lin1, tokens))
        tokens = self.norm3(tokens + rows(self.mlp.lin2, hidden_layer))
        cells = cells + self.image_to_token(keys, tokens + token_pe, tokens, hidden, image)
        return tokens, self.norm4(cells)


class ImageProjections(nn.Module):
    """What the first layer needs of a photograph: (1, L, dim) cells to `Projected`.

    Its parameters are those of the layer in another order. The keys' bias adds the same to all cells, which softmax
    ignores; that of the values passes attention and is in the bias behind.
    """

    def __init__(self, layer: EdgeTwoWayBlock) -> None:
        super().__init__()
        to_image, to_tokens = layer.token_to_image, layer.image_to_token
        self.heads = to_image.heads
        keys, values = to_image.to_cells.weight[0], to_image.from_cells.weight[0].transpose(1, 2)
        queries, bias = to_tokens.to_cells.weight[0, :, :, :-1], to_tokens.to_cells.weight[0, :, :, -1]
        # Channels of the keys count heads first: for two equal arrays the converter stores one.
        self.k = linear(keys.transpose(0, 1).flatten(0, 1), torch.zeros(bias.numel()))
        self.v = linear(values.flatten(0, 1), torch.zeros(bias.numel()))
        self.q = linear(queries.flatten(0, 1), bias.flatten())

    def forward(self, cells: Tensor, cell_pe: Tensor) -> Projected:
        keys, length = cells + cell_pe, cells.shape[1]
        return Projected(
            cells,
            rows(self.k, keys).reshape(1, length, -1, self.heads).permute(0, 3, 2, 1),
            rows(self.v, cells).reshape(1, length, self.heads, -1).transpose(1, 2),
            rows(self.q, keys).reshape(1, length, self.heads, -1).permute(0, 2, 3, 1),
        )


class EdgeTransformer(nn.Module):
    """`TwoWayTransformer` with reordered attention."""

    def __init__(self, transformer: TwoWayTransformer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EdgeTwoWayBlock(block) for block in transformer.layers)
        self.final = TokenToImage(transformer.final_attn_token_to_image)
        self.norm = transformer.norm_final_attn

    def forward(
        self,
        cells: Tensor,
        cell_pe: Tensor,
        token_pe: Tensor,
        hidden: Tensor,
        wanted: int,
        image: Projected | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The first `wanted` tokens after attention, and the cells; `image`: the projected `cells`."""
        first, *others = self.layers
        tokens, cells = first(token_pe, cells, token_pe, cell_pe, hidden, image)
        for layer in others:
            tokens, cells = layer(tokens, cells, token_pe, cell_pe, hidden)
        tokens, token_pe = tokens[:, :wanted], token_pe[:, :wanted]
        return self.norm(tokens + self.final(tokens + token_pe, cells + cell_pe, cells)), cells
