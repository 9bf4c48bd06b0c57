"""Prompt encoder and mask decoder as one edge graph: the same mathematics as `tinysam.models`, reordered to do less.

Of a textbook decoder's work, over 80 % are linear layers over every image cell, repeated for every prompt. They go away
by associativity, because the tokens are few (T = 7 for a click) and the cells are many (L = 4096 at 1024 pixels):

* Attention from tokens to image: the scores `q_h . (W_k x)` are `(W_k^T q_h) . x`, so the key projection of L cells
  becomes one of H * T token vectors. Its bias adds the same to every cell, and softmax ignores it. The value projection
  moves behind the weighted sum in the same way.
* Attention from image to tokens: the query projection moves to the tokens likewise, and the output projection is
  applied to the H * T value vectors before the sum over tokens.
* Softmax over the tokens of a cell is written out, along the cells: engines are slow at rows of T numbers.
* A transposed 2x2 convolution of stride 2 is a matrix product whose columns are the four sub-pixels. Layer norm, GELU
  and the second upscaling act on each sub-pixel alone, so sub-pixels are put into their places only at the very end,
  on the few masks instead of on 64 and 32 channels.

H * T vectors of width `dim` replace L vectors twice: 59 million multiplications instead of 134 million for each
projection of TinyViT-5M at 1024 and one click, and no per-head transposes of image-sized tensors at all.
"""

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.export.encoder_graph import linear
from tinysam.models.mask_decoder import MaskDecoder
from tinysam.models.prompt_encoder import PromptEncoder
from tinysam.models.sam import Sam
from tinysam.models.transformer import Attention, TwoWayBlock, TwoWayTransformer
from tinysam.runtime.labels import ABSENT
from tinysam.runtime.mask_choice import ambiguous_masks

HIDDEN = -1e4
"""Added to the attention score of an absent token: exp() of it is zero in float32 beside any real score."""


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

    def forward(self, q: Tensor, keys: Tensor, cells: Tensor) -> Tensor:
        scores = self.to_cells(self.q(q)) @ keys.transpose(1, 2)
        seen = self.from_cells(scores.softmax(-1) @ cells)
        prompts, tokens, _ = q.shape
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

    def forward(self, queries: Tensor, keys: Tensor, tokens: Tensor, hidden: Tensor) -> Tensor:
        """`hidden` (P, 1, 1, T) is added to the scores."""
        dim = queries.shape[2]
        rows = self.to_cells(self.k(keys))  # (P, heads * T, dim + 1): the last column is the bias of the score
        prompts, head_tokens, _ = rows.shape
        bias = rows[:, :, dim:].reshape(prompts, self.heads, -1, 1) + hidden.transpose(2, 3)
        scores = (rows[:, :, :dim] @ queries.transpose(1, 2)).reshape(
            prompts, self.heads, head_tokens // self.heads, -1
        )
        scores = scores + bias
        grown = (scores - scores.amax(dim=2, keepdim=True)).exp()
        weights = (grown / grown.sum(dim=2, keepdim=True)).reshape(prompts, head_tokens, -1)
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
        self, tokens: Tensor, cells: Tensor, token_pe: Tensor, cell_pe: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.first:
            tokens = self.self_attn(tokens, tokens, hidden)
        else:
            tokens = tokens + self.self_attn(tokens + token_pe, tokens, hidden)
        tokens = self.norm1(tokens)
        keys = cells + cell_pe
        tokens = self.norm2(tokens + self.token_to_image(tokens + token_pe, keys, cells))
        hidden_layer = F.relu(rows(self.mlp.lin1, tokens))
        tokens = self.norm3(tokens + rows(self.mlp.lin2, hidden_layer))
        cells = cells + self.image_to_token(keys, tokens + token_pe, tokens, hidden)
        return tokens, self.norm4(cells)


class EdgeTransformer(nn.Module):
    """`TwoWayTransformer` with reordered attention."""

    def __init__(self, transformer: TwoWayTransformer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EdgeTwoWayBlock(block) for block in transformer.layers)
        self.final = TokenToImage(transformer.final_attn_token_to_image)
        self.norm = transformer.norm_final_attn

    def forward(
        self, cells: Tensor, cell_pe: Tensor, token_pe: Tensor, hidden: Tensor, wanted: int
    ) -> tuple[Tensor, Tensor]:
        """The first `wanted` tokens after attention, and the cells."""
        tokens = token_pe
        for layer in self.layers:
            tokens, cells = layer(tokens, cells, token_pe, cell_pe, hidden)
        tokens, token_pe = tokens[:, :wanted], token_pe[:, :wanted]
        return self.norm(tokens + self.final(tokens + token_pe, cells + cell_pe, cells)), cells


class PromptTokens(nn.Module):
    """Points and labels to tokens by arithmetic on the labels, without branches."""

    def __init__(self, encoder: PromptEncoder) -> None:
        super().__init__()
        matrix = encoder.pe_layer.positional_encoding_gaussian_matrix
        # 2 (x + 0.5) / S - 1 first: the angles are small differences of large numbers otherwise
        self.slope, self.offset = 2 / encoder.image_size, 1 / encoder.image_size - 1
        self.angle = linear(2 * math.pi * matrix.T, torch.zeros(matrix.shape[1]))
        table = [encoder.not_a_point_embed, *encoder.point_embeddings]
        self.labels: Tensor
        self.register_buffer("labels", torch.arange(-1.0, len(table) - 1))
        self.embeddings = linear(torch.cat([row.weight for row in table]).T, torch.zeros(encoder.embed_dim))

    def forward(self, coords: Tensor, labels: Tensor) -> Tensor:
        """(P, N, 2), (P, N) -> (P, N, dim)."""
        angle = self.angle(coords * self.slope + self.offset)
        encoding = torch.cat([angle.sin(), angle.cos()], dim=-1)
        label = labels[:, :, None]
        is_label = (label == self.labels).to(coords.dtype)
        return encoding * (label >= 0).to(coords.dtype) + self.embeddings(is_label)


class MaskPrompt(nn.Module):
    """The dense embedding of a mask prompt as (M, L, dim) cells.

    The last convolution, of one cell, is a matrix product that puts the channels last at once. Two more inputs of it
    choose between its bias and the embedding of there being no mask.
    """

    def __init__(self, encoder: PromptEncoder) -> None:
        super().__init__()
        first, norm1, act, second, norm2, _, last = encoder.mask_downscaling
        self.first, self.second = first, second
        self.norm1, self.norm2 = norm1, norm2
        self.act = act
        self.no_mask: Tensor
        self.register_buffer("no_mask", encoder.no_mask_embed.weight.detach()[None].clone())
        rows = [last.weight.flatten(1).T, last.bias[None], encoder.no_mask_embed.weight]
        self.last = nn.Parameter(torch.cat(rows).detach().clone())  # (channels + 2, dim)

    def forward(self, masks: Tensor, has_mask: Tensor) -> Tensor:
        x = self.act(self.norm1(self.first(masks)))
        x = self.act(self.norm2(self.second(x))).flatten(2).transpose(1, 2)
        has = has_mask[:, None, None]
        choice = torch.cat([has, 1 - has], dim=2).expand(-1, x.shape[1], -1)
        return torch.cat([x * has, choice], dim=2) @ self.last


class Upscaling(nn.Module):
    """(P, L, dim) cells and (P, masks, dim / 8) weights -> (P, masks, 4 * grid, 4 * grid) logits."""

    def __init__(self, decoder: MaskDecoder, grid: int) -> None:
        super().__init__()
        first, norm, _, second, _ = decoder.output_upscaling
        self.grid, self.width = grid, second.in_channels
        self.first, self.second = self.sub_pixels(first), self.sub_pixels(second)
        self.norm = nn.LayerNorm(self.width, eps=norm.eps)
        self.norm.weight, self.norm.bias = norm.weight, norm.bias

    @staticmethod
    def sub_pixels(conv: nn.ConvTranspose2d) -> nn.Linear:
        """A 2x2 transposed convolution of stride 2 as a linear layer with outputs (row, column, channel)."""
        weight = conv.weight.permute(2, 3, 1, 0).reshape(-1, conv.in_channels)
        assert conv.bias is not None
        return linear(weight, conv.bias.repeat(4))

    def forward(self, cells: Tensor, hyper: Tensor) -> Tensor:
        prompts, length, dim = cells.shape
        masks, g = hyper.shape[1], self.grid
        x = self.first(cells.reshape(-1, dim)).reshape(-1, self.width)
        x = F.gelu(self.second(F.gelu(self.norm(x))))
        x = hyper @ x.reshape(prompts, length * 16, hyper.shape[2]).transpose(1, 2)
        # (grid row, grid column, 2x2 of the first upscaling, 2x2 of the second): rows first, then columns
        x = x.reshape(prompts * masks * g, g, 2, 8).transpose(1, 2)
        x = x.reshape(prompts * masks * g * 2, 2 * g, 2, 2).transpose(1, 2)
        return x.reshape(prompts, masks, 4 * g, 4 * g)


class Attended(NamedTuple):
    """What the transformer knows of P prompts, before any mask is drawn."""

    cells: Tensor
    """(P, L, dim) the image as each prompt sees it."""
    mask_weights: Tensor
    """(P, masks, dim / 8) what to look for in the upscaled cells."""
    iou: Tensor
    """(P, masks) predicted IoU of each mask."""


class DecoderGraph(nn.Module):
    """Prompts and image embedding to low-res masks and predicted IoU; see `docs/artifacts.md` for the tensors."""

    BLOCKS: ClassVar[tuple[str, ...]] = (
        "prompt_tokens",
        "mask_prompt",
        "transformer.layers.*",
        "transformer.final",
        "upscaling",
        "hypernetworks",
        "iou_head",
        "iou_last",
    )
    """Modules that INT8 quantizes, or keeps in float, as one: paths in which `*` stands for any one name."""

    def __init__(self, sam: Sam, mask_tokens: tuple[int, ...], channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last
        prompts, decoder = sam.prompt_encoder, sam.mask_decoder
        self.mask_tokens = mask_tokens
        self.prompt_tokens = PromptTokens(prompts)
        self.mask_prompt = MaskPrompt(prompts)
        self.transformer = EdgeTransformer(decoder.transformer)
        self.upscaling = Upscaling(decoder, sam.grid)
        self.hypernetworks = nn.ModuleList(decoder.output_hypernetworks_mlps[i] for i in mask_tokens)
        self.iou_head = decoder.iou_prediction_head
        # Output tokens of masks that are not offered still take part in attention.
        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        self.register_buffer("output_tokens", output_tokens.detach()[None].clone())
        cell_pe = prompts.grid_position_encoding().flatten(2).transpose(1, 2)
        self.register_buffer("cell_pe", cell_pe.detach().clone())
        last = self.iou_head.layers[-1]
        self.iou_last = linear(last.weight[list(mask_tokens)], last.bias[list(mask_tokens)])

    def iou(self, token: Tensor) -> Tensor:
        """(P, dim) -> (P, masks) predicted IoU of the masks that are offered."""
        for layer in self.iou_head.layers[:-1]:
            token = F.relu(layer(token))
        return self.iou_last(token)

    def attend(self, image_embeddings: Tensor, dense: Tensor, point_coords: Tensor, point_labels: Tensor) -> Attended:
        """Everything but the upscaling; `dense` is the embedding of the mask prompt, or of there being none."""
        sparse = self.prompt_tokens(point_coords, point_labels)
        output_tokens = self.output_tokens.expand(sparse.shape[0], -1, -1)
        tokens = torch.cat([output_tokens, sparse], dim=1)
        absent = (point_labels == ABSENT).to(sparse.dtype) * HIDDEN
        hidden = F.pad(absent, (output_tokens.shape[1], 0))[:, None, None, :]
        cells = image_embeddings.flatten(1, 2) if self.channels_last else image_embeddings.flatten(2).transpose(1, 2)
        # The tokens of the prompt have done their part when the output tokens look at the image for the last time.
        tokens, cells = self.transformer(cells + dense, self.cell_pe, tokens, hidden, 2 + max(self.mask_tokens))
        weights = [head(tokens[:, 1 + i]) for i, head in zip(self.mask_tokens, self.hypernetworks, strict=True)]
        return Attended(cells, torch.stack(weights, dim=1), self.iou(tokens[:, 0]))

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        dense = self.mask_prompt(mask_input, has_mask_input)
        found = self.attend(image_embeddings, dense, point_coords, point_labels)
        return self.upscaling(found.cells, found.mask_weights), found.iou


class SelectiveDecoder(nn.Module):
    """The decoder with a choice in it: masks are drawn only for prompts whose predicted IoU is above a threshold.

    Upscaling is two fifths of the work. On a grid of points most masks are dropped for their predicted IoU, which is
    known before.
    """

    def __init__(self, decoder: DecoderGraph) -> None:
        super().__init__()
        self.decoder = decoder
        # The single-mask output is no answer to an ambiguous prompt, so it is excluded from the
        # threshold test unless it is the only one.
        self.judged: Tensor
        self.register_buffer("judged", torch.tensor(ambiguous_masks(decoder.mask_tokens)))

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        iou_threshold: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Masks of the K prompts that passed, predicted IoU of all P; `iou_threshold` is (1,)."""
        dense = self.decoder.mask_prompt(mask_input, has_mask_input)
        found = self.decoder.attend(image_embeddings, dense, point_coords, point_labels)
        best = found.iou.index_select(1, self.judged).amax(1)
        passed = (best > iou_threshold).nonzero()[:, 0]
        cells, weights = found.cells.index_select(0, passed), found.mask_weights.index_select(0, passed)
        return self.decoder.upscaling(cells, weights), found.iou


@torch.no_grad()
def decoder_graph(sam: Sam, mask_tokens: tuple[int, ...], channels_last: bool = False) -> DecoderGraph:
    """The edge graph of `sam`'s prompt encoder and mask decoder, giving these mask tokens, in evaluation mode.

    With `channels_last` it takes the embedding as (1, grid, grid, dim).
    """
    return DecoderGraph(sam.eval(), mask_tokens, channels_last).eval()
