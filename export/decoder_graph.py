"""Prompt encoder and mask decoder as one edge graph: the same mathematics as `tinysam.models`, reordered to do less.

1. Points and labels become tokens, a mask prompt an embedding of every cell (`decoder_prompts`).
2. Tokens and cells attend to each other, without projections of the cells (`decoder_attention`).
3. Two output tokens give the predicted IoU and the weights of the masks.
4. Cells are upscaled and weighted. A transposed 2x2 convolution of stride 2 is a matrix product whose columns are the
   four sub-pixels. Layer norm, GELU and the second upscaling act on each sub-pixel alone, so sub-pixels are put into
   their places only at the very end, on the few masks instead of on 64 and 32 channels.

`DecoderGraph` is the whole of it for all prompts; `SelectiveDecoder` skips step 4 for prompts that a threshold of
predicted IoU drops. TFLite's shapes are fixed, so there the same choice takes two calls, `AttendStage` and
`UpscaleStage`. What the first needs of the photograph alone `PrepareStage` has computed once before.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.export.decoder_attention import EdgeTransformer, ImageProjections, Projected
from tinysam.export.decoder_prompts import MaskPrompt, PromptTokens, equal
from tinysam.export.encoder_graph import linear
from tinysam.models.mask_decoder import MaskDecoder
from tinysam.models.sam import Sam
from tinysam.runtime.labels import ABSENT
from tinysam.runtime.mask_choice import ambiguous_masks

HIDDEN = -1e4
"""Added to the attention score of an absent token: exp() of it is zero in float32 beside any real score."""


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
    """Outputs of the two-way transformer for P prompts."""

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

    def tokens(self, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of P prompts (P, T, dim), and what hides absent ones (P, 1, 1, T) when added to attention scores."""
        sparse = self.prompt_tokens(point_coords, point_labels)
        output_tokens = self.output_tokens.expand(sparse.shape[0], -1, -1)
        tokens = torch.cat([output_tokens, sparse], dim=1)
        absent = equal(point_labels, ABSENT) * HIDDEN
        return tokens, F.pad(absent, (output_tokens.shape[1], 0))[:, None, None, :]

    def cells(self, image_embeddings: Tensor, dense: Tensor) -> Tensor:
        """(1, L, dim); `dense` is the embedding of the mask prompt, or of there being none."""
        cells = image_embeddings.flatten(1, 2) if self.channels_last else image_embeddings.flatten(2).transpose(1, 2)
        return cells + dense

    def attend(self, tokens: Tensor, hidden: Tensor, cells: Tensor, image: Projected | None = None) -> Attended:
        """Everything between the prompts' tokens and the upscaling; `image`: the projected `cells`."""
        # The tokens of the prompt have done their part when the output tokens look at the image for the last time.
        wanted = 2 + max(self.mask_tokens)
        tokens, cells = self.transformer(cells, self.cell_pe, tokens, hidden, wanted, image)
        # Slices, not indices, which LiteRT gathers outside XNNPACK: all that is there would be converted around them.
        iou_token, *mask_tokens = (tokens[:, i : i + 1].flatten(1) for i in (0, *(1 + i for i in self.mask_tokens)))
        weights = [head(token) for head, token in zip(self.hypernetworks, mask_tokens, strict=True)]
        return Attended(cells, torch.stack(weights, dim=1), self.iou(iou_token))

    def before_upscaling(
        self, image_embeddings: Tensor, dense: Tensor, point_coords: Tensor, point_labels: Tensor
    ) -> Attended:
        """All but the embedding `dense` of the mask prompt and the upscaling, for prompts of any kind."""
        tokens, hidden = self.tokens(point_coords, point_labels)
        return self.attend(tokens, hidden, self.cells(image_embeddings, dense))

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        dense = self.mask_prompt(mask_input, has_mask_input)
        found = self.before_upscaling(image_embeddings, dense, point_coords, point_labels)
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
        found = self.decoder.before_upscaling(image_embeddings, dense, point_coords, point_labels)
        best = found.iou.index_select(1, self.judged).amax(1)
        passed = (best > iou_threshold).nonzero()[:, 0]
        cells, weights = found.cells.index_select(0, passed), found.mask_weights.index_select(0, passed)
        return self.decoder.upscaling(cells, weights), found.iou


class PrepareStage(nn.Module):
    """What comes before a decoder in two calls, once for a photograph."""

    def __init__(self, decoder: DecoderGraph) -> None:
        super().__init__()
        self.decoder = decoder
        self.projections = ImageProjections(decoder.transformer.layers[0])

    def forward(self, image_embeddings: Tensor) -> Projected:
        cells = self.decoder.cells(image_embeddings, self.decoder.mask_prompt.no_mask)
        image: Projected = self.projections(cells, self.decoder.cell_pe)
        return image


class AttendStage(nn.Module):
    """First half of a decoder in two calls, for prompts without a mask: all but the upscaling."""

    def __init__(self, decoder: DecoderGraph) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        cells: Tensor,
        keys: Tensor,
        values: Tensor,
        queries: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
    ) -> Attended:
        tokens, hidden = self.decoder.tokens(point_coords, point_labels)
        return self.decoder.attend(tokens, hidden, cells, Projected(cells, keys, values, queries))


class UpscaleStage(nn.Module):
    """Second half of a decoder in two calls."""

    def __init__(self, decoder: DecoderGraph) -> None:
        super().__init__()
        self.upscaling = decoder.upscaling

    def forward(self, cells: Tensor, mask_weights: Tensor) -> tuple[Tensor]:
        return (self.upscaling(cells, mask_weights),)


@torch.no_grad()
def decoder_graph(sam: Sam, mask_tokens: tuple[int, ...], channels_last: bool = False) -> DecoderGraph:
    """The edge graph of `sam`'s prompt encoder and mask decoder, giving these mask tokens, in evaluation mode.

    With `channels_last` it takes the embedding as (1, grid, grid, dim).
    """
    return DecoderGraph(sam.eval(), mask_tokens, channels_last).eval()
