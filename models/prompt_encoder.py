"""SAM's prompt encoder: points, box corners and low-resolution masks to tokens and a dense embedding.

Every sparse prompt is a point with a label (`tinysam.runtime.labels`), which is how SAM's own ONNX graph takes them.
"""

import math

import torch
from torch import Tensor, nn

from tinysam.models.layers import LayerNorm2d

PIXELS_PER_CELL = 4
"""Pixels of the model's input per cell of a low-res mask."""
BOX_LOGIT = 8.0
"""Logit inside a filled box, and its negative outside."""


def filled_boxes(corners: Tensor, side: int) -> Tensor:
    """Boxes as mask input: logits by how much of each low-res cell the box covers.

    Args:
        corners: (P, 2, 2) top-left and bottom-right x and y in pixels of the model's input.
        side: of the low-res mask, 4 * grid.

    Returns:
        (P, 1, side, side), `BOX_LOGIT` where the cell is inside, minus that where it is outside.
    """
    start = torch.arange(side, device=corners.device) * PIXELS_PER_CELL
    low, high = corners[:, 0, :, None], corners[:, 1, :, None]
    overlap = torch.minimum(high, start + PIXELS_PER_CELL) - torch.maximum(low, start)
    cover = overlap.clamp(0, PIXELS_PER_CELL) / PIXELS_PER_CELL
    x, y = cover[:, 0], cover[:, 1]
    return BOX_LOGIT * (2 * y[:, None, :, None] * x[:, None, None, :] - 1)


class RandomPositionEncoding(nn.Module):
    """Random Fourier features of a position (Tancik et al. 2020, arXiv:2006.10739)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, position: Tensor) -> Tensor:
        """(..., 2) x and y in [0, 1] -> (..., 2 * features)."""
        angle = 2 * math.pi * ((2 * position - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Encodes prompts in the pixel frame of the model's input (`image_size` square, x right, y down)."""

    def __init__(self, image_size: int, grid: int, embed_dim: int = 256, mask_channels: int = 16) -> None:
        super().__init__()
        self.image_size, self.grid, self.embed_dim = image_size, grid, embed_dim
        self.pe_layer = RandomPositionEncoding(embed_dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, 2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, 2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, embed_dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def grid_position_encoding(self) -> Tensor:
        """Position encoding of the centres of the embedding's cells: (1, embed_dim, grid, grid)."""
        matrix = self.pe_layer.positional_encoding_gaussian_matrix
        centre = (torch.arange(self.grid, device=matrix.device, dtype=matrix.dtype) + 0.5) / self.grid
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        return self.pe_layer(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]

    def points(self, coords: Tensor, labels: Tensor) -> Tensor:
        """(P, N, 2) float pixels and (P, N) labels -> (P, N, embed_dim) tokens."""
        encoding = self.pe_layer((coords + 0.5) / self.image_size)
        label = labels[..., None]
        token = torch.where(label >= 0, encoding, self.not_a_point_embed.weight)
        for value, embedding in enumerate(self.point_embeddings):
            token = token + (label == value) * embedding.weight
        return token

    def dense(self, masks: Tensor | None) -> Tensor:
        """(P, 1, 4 * grid, 4 * grid) mask logits -> (P, embed_dim, grid, grid); None -> (1, embed_dim, 1, 1)."""
        if masks is None:
            return self.no_mask_embed.weight.view(1, -1, 1, 1)
        return self.mask_downscaling(masks)
