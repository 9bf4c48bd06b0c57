"""The PyTorch model's answers on real photographs, which every exported file has to give as well."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.feeds import Feed, ImageFeed, decoder_feeds, prompt_feed
from tinysam.models.sam import Sam

PARITY_IMAGES = 2
"""Photographs on which every file is compared with PyTorch."""


@dataclass(frozen=True)
class ReferenceCase:
    """One image, its embedding, and prompts with their answers."""

    image: Floats
    """(1, 3, S, S)."""
    size: tuple[int, int]
    embedding: Floats
    """(1, dim, grid, grid)."""
    prompts: tuple[Feed, ...]
    """Decoder inputs besides the embedding."""
    answers: tuple[Mapping[str, Floats], ...]
    """`low_res_masks` and `iou_predictions` for each, offered mask tokens only."""


class Reference:
    """Runs the plain PyTorch model with the tensors of the exported files."""

    def __init__(self, sam: Sam, mask_tokens: tuple[int, ...]) -> None:
        self.sam, self.mask_tokens = sam, list(mask_tokens)

    @torch.no_grad()
    def encode(self, image: Floats) -> Floats:
        """(1, 3, S, S) -> (1, dim, grid, grid)."""
        embedding: Floats = self.sam.encode(torch.from_numpy(image)).numpy()
        return embedding

    @torch.no_grad()
    def decode(self, embedding: Floats, feed: Feed) -> tuple[Floats, Floats]:
        """Low-res masks and predicted IoU of the offered mask tokens."""
        mask = torch.from_numpy(feed["mask_input"]) if feed["has_mask_input"][0] else None
        decoded = self.sam.decode(
            torch.from_numpy(embedding),
            torch.from_numpy(feed["point_coords"]),
            torch.from_numpy(feed["point_labels"]),
            mask,
        )
        return decoded.low_res_masks[:, self.mask_tokens].numpy(), decoded.iou[:, self.mask_tokens].numpy()

    def case(self, image: ImageFeed, seed: int) -> ReferenceCase:
        """Points, boxes, a mask prompt, a box with points, and a prompt with absent slots, on one image."""
        embedding = self.encode(image.image)
        low_res = 4 * self.sam.grid
        rng = np.random.default_rng(seed)
        feeds = decoder_feeds(embedding, image.size, self.decode, low_res, rng, count=2)
        clicks, boxes, *_ = feeds
        points, negative = clicks["point_coords"][:, :1], clicks["point_coords"][::-1, :1]
        mixed = np.concatenate([points, negative, boxes["point_coords"]], axis=1)
        feeds.append(prompt_feed(mixed, np.tile(floats([1, 0, 2, 3]), (2, 1)), None, low_res))
        padded = np.concatenate([clicks["point_coords"], mixed[:, :1]], axis=1)
        feeds.append(prompt_feed(padded, np.tile(floats([1, -1, -2]), (2, 1)), None, low_res))
        answers = [self.decode(embedding, feed) for feed in feeds]
        named = tuple({"low_res_masks": masks, "iou_predictions": iou} for masks, iou in answers)
        return ReferenceCase(image.image, image.size, embedding, tuple(feeds), named)


def reference_cases(sam: Sam, mask_tokens: tuple[int, ...], feeds: list[ImageFeed]) -> list[ReferenceCase]:
    """PyTorch's answers on the first photographs of a calibration set."""
    reference = Reference(sam, mask_tokens)
    return [reference.case(feed, seed) for seed, feed in enumerate(feeds[:PARITY_IMAGES])]
