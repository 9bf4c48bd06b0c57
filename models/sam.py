"""A promptable segmentation model: image encoder, prompt encoder, mask decoder."""

import torch
from torch import Tensor, nn

from tinysam.models.encoder import ImageEncoder
from tinysam.models.mask_decoder import Decoded, MaskDecoder
from tinysam.models.prompt_encoder import PromptEncoder
from tinysam.runtime.labels import ABSENT

MEAN = (123.675, 116.28, 103.53)
"""Mean of the training images, RGB, in units of 0 to 255."""
STD = (58.395, 57.12, 57.375)
"""Standard deviation of the training images, RGB, in units of 0 to 255."""


class Sam(nn.Module):
    """SAM with any image encoder; module names are those of the official checkpoints."""

    def __init__(self, image_encoder: ImageEncoder, image_size: int, mlp_dim: int = 2048, embed_dim: int = 256) -> None:
        super().__init__()
        self.image_size, self.grid = image_size, image_size // image_encoder.sizes.stride
        self.image_encoder = image_encoder
        self.prompt_encoder = PromptEncoder(image_size, self.grid, embed_dim)
        self.mask_decoder = MaskDecoder(embed_dim, mlp_dim)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalized RGB, zero-padded right and below -> (B, embed_dim, grid, grid)."""
        embedding: Tensor = self.image_encoder(images)
        return embedding

    def decode(self, embeddings: Tensor, coords: Tensor, labels: Tensor, mask_input: Tensor | None = None) -> Decoded:
        """Decodes P prompts.

        Args:
            embeddings: (P, embed_dim, grid, grid), or (1, ...) when all prompts are about one image.
            coords: (P, N, 2) x and y in pixels of the model's input.
            labels: (P, N) of `tinysam.runtime.labels`. A prompt without a box needs its padding
                point (label -1) given here.
            mask_input: (P, 1, 4 * grid, 4 * grid) logits of an earlier low-res mask, or None.
        """
        absent = labels == ABSENT
        present = ~absent if bool(absent.any()) else None
        sparse = self.prompt_encoder.points(coords, labels)
        image = embeddings + self.prompt_encoder.dense(mask_input)
        return self.mask_decoder(image, self.prompt_encoder.grid_position_encoding(), sparse, present)


def normalize(pixels: Tensor) -> Tensor:
    """(..., 3, H, W) RGB in 0 to 255 -> the encoder's input range."""
    mean = torch.tensor(MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(STD, device=pixels.device).view(3, 1, 1)
    return (pixels - mean) / std
