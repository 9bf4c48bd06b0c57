"""Prompts as the decoder's edge graph takes them: points to tokens, a mask to an embedding of every cell."""

# PyTorch types every submodule as "Tensor or Module" and every call of one as Any.
# mypy: disable-error-code="arg-type, assignment, index, operator, union-attr, no-any-return"

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinysam.export.encoder_graph import linear
from tinysam.models.prompt_encoder import PromptEncoder


def equal(labels: Tensor, value: Tensor | int) -> Tensor:
    """1 where whole numbers are `value`, else 0; comparisons would run outside XNNPACK."""
    return F.relu(1 - (labels - value).abs())


class PromptTokens(nn.Module):
    """Points and labels to tokens by arithmetic on the labels, which are whole numbers, without branches."""

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
        is_label = equal(label, self.labels)
        return encoding * F.relu(1 - F.relu(-label)) + self.embeddings(is_label)


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
        self.register_buffer("no_mask", encoder.no_mask_embed.weight.detach()[0].clone())  # (dim,)
        rows = [last.weight.flatten(1).T, last.bias[None], encoder.no_mask_embed.weight]
        self.last = nn.Parameter(torch.cat(rows).detach().clone())  # (channels + 2, dim)

    def forward(self, masks: Tensor, has_mask: Tensor) -> Tensor:
        x = self.act(self.norm1(self.first(masks)))
        x = self.act(self.norm2(self.second(x))).flatten(2).transpose(1, 2)
        has = has_mask[:, None, None]
        choice = torch.cat([has, 1 - has], dim=2).expand(-1, x.shape[1], -1)
        return torch.cat([x * has, choice], dim=2) @ self.last
