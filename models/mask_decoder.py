"""SAM's mask decoder: tokens and image embedding to four low-res masks and their predicted IoU."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tinysam.models.layers import MLP, LayerNorm2d
from tinysam.models.transformer import TwoWayTransformer

MASKS = 4
"""Mask tokens: token 0 for a single unambiguous mask, tokens 1 to 3 for the three of an ambiguous prompt."""


class Decoded(NamedTuple):
    """The decoder's outputs for P prompts."""

    low_res_masks: Tensor
    """(P, 4, 4 * grid, 4 * grid) logits; above 0 is foreground."""
    iou: Tensor
    """(P, 4) predicted IoU of each mask with the true one."""
    tokens: Tensor
    """(P, 5, dim) output tokens (IoU token, then the mask tokens): what full-stage distillation compares."""


class MaskDecoder(nn.Module):
    """Two-way transformer, transposed-convolution upscaling, one hypernetwork per mask, IoU head."""

    def __init__(self, dim: int = 256, mlp_dim: int = 2048) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, mlp_dim=mlp_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(MASKS, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, 2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(MASKS))
        self.iou_prediction_head = MLP(dim, dim, MASKS, 3)

    def forward(self, image: Tensor, image_pe: Tensor, sparse: Tensor, present: Tensor | None = None) -> Decoded:
        """Decodes P prompts.

        Args:
            image: (P, dim, grid, grid) image embedding plus dense prompt embedding, or (1, ...) for all prompts.
            image_pe: (1, dim, grid, grid) position encoding of the cells.
            sparse: (P, N, dim) prompt tokens.
            present: (P, N) bool, False for slots without a prompt; None if there are none such.
        """
        prompts, _, _ = sparse.shape
        grid = image.shape[-1]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(prompts, -1, -1), sparse], dim=1)
        if present is not None:
            present = torch.cat([present.new_ones(prompts, 1 + MASKS), present], dim=1)
        cells = image.flatten(2).transpose(1, 2).expand(prompts, -1, -1)
        tokens, cells = self.transformer(cells, image_pe.flatten(2).transpose(1, 2), tokens, present)
        upscaled = self.output_upscaling(cells.transpose(1, 2).unflatten(-1, (grid, -1)))
        heads = zip(self.output_hypernetworks_mlps, tokens[:, 1 : 1 + MASKS].unbind(1), strict=True)
        hyper = torch.stack([head(token) for head, token in heads], dim=1)
        masks = (hyper @ upscaled.flatten(2)).unflatten(-1, upscaled.shape[-2:])
        return Decoded(masks, self.iou_prediction_head(tokens[:, 0]), tokens[:, : 1 + MASKS])
