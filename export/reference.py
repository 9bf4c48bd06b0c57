"""The PyTorch model's answers on real photographs, which every exported file has to give as well."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.feeds import Feed, ImageFeed, decoder_feeds, prompt_feed
from tinysam.export.engine import FeedModel
from tinysam.export.torch_model import TorchModel
from tinysam.models.sam import MEAN, STD, Sam
from tinysam.runtime.manifest import Manifest

PARITY_IMAGES = 2
"""Photographs on which every file is compared with PyTorch."""


@dataclass(frozen=True)
class ReferenceCase:
    """One image, its embedding, and prompts with their answers."""

    feed: ImageFeed
    embedding: Floats
    """(1, dim, grid, grid)."""
    prompts: tuple[Feed, ...]
    """Decoder inputs besides the embedding."""
    answers: tuple[Mapping[str, Floats], ...]
    """`low_res_masks` and `iou_predictions` for each, offered mask tokens only."""

    @property
    def image(self) -> Floats:
        """(1, 3, S, S) normalized."""
        return self.feed.image

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photograph inside the square."""
        return self.feed.size


class Reference(FeedModel):
    """The plain PyTorch model with the offered mask tokens."""

    def __init__(self, sam: Sam, mask_tokens: tuple[int, ...]) -> None:
        super().__init__(TorchModel(sam, Manifest("", sam.image_size, sam.grid, MEAN, STD, mask_tokens, ())))

    def case(self, image: ImageFeed, seed: int) -> ReferenceCase:
        """Points, boxes, a mask prompt, a box with points, and a prompt with absent slots, on one image."""
        embedding, low_res = self.encode(image), self.model.low_res_side
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
        return ReferenceCase(image, embedding, tuple(feeds), named)


def reference_cases(sam: Sam, mask_tokens: tuple[int, ...], feeds: list[ImageFeed]) -> list[ReferenceCase]:
    """PyTorch's answers on the first photographs of a calibration set."""
    reference = Reference(sam, mask_tokens)
    return [reference.case(feed, seed) for seed, feed in enumerate(feeds[:PARITY_IMAGES])]
