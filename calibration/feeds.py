"""What the graphs are fed during calibration: real photographs, and prompts made from the model's own masks.

A decoder calibrated on random points alone sees few boxes, few confident masks and no mask prompts. Here every image is
prompted with points, then with the boxes of the masks those points gave, then with a box and corrections inside it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.images import CalibrationImage
from tinysam.runtime.geometry import LOW_RES_STRIDE, Frame
from tinysam.runtime.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, PADDING, POSITIVE
from tinysam.runtime.manifest import Manifest, ModelFile
from tinysam.runtime.preprocess import encoder_input, normalize, resize, to_pil
from tinysam.runtime.prompts import filled_boxes

JITTER = 0.05
"""Standard deviation of a box's sides, in parts of the box."""

Feed = dict[str, Floats]
Decode = Callable[[Floats, Feed], tuple[Floats, Floats]]
"""(embedding, prompt feed) -> low-res masks (P, masks, h, w) and predicted IoU (P, masks)."""


@dataclass(frozen=True)
class ImageFeed:
    """A photograph as the encoder takes it."""

    name: str
    pixels: npt.NDArray[np.uint8]
    """(h, w, 3) RGB, resized to the model's input."""
    manifest: Manifest
    photograph: str
    """Name of the photograph that it is a view of."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the photograph inside the square."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @cached_property
    def image(self) -> Floats:
        """(1, 3, S, S) normalized, zero-padded."""
        return normalize(self.pixels, self.manifest)

    def input_of(self, file: ModelFile) -> npt.NDArray[Any]:
        """What an encoder file takes, made exactly as the runtime makes it."""
        (signature,) = file.signatures.values()
        dtype = signature.inputs["image"].dtype
        return encoder_input(self.pixels, self.manifest, file.input or "normalized", file.layout, dtype)


def image_feed(image: CalibrationImage, manifest: Manifest) -> ImageFeed:
    """Resizes one picture exactly as the runtime does."""
    picture = to_pil(image.pixels)
    frame = Frame((picture.height, picture.width), manifest.image_size)
    return ImageFeed(image.name, resize(picture, frame), manifest, image.photograph or image.name)


def image_feeds(images: Sequence[CalibrationImage], manifest: Manifest) -> Iterator[ImageFeed]:
    """One feed per picture, made when it is asked for."""
    return (image_feed(image, manifest) for image in images)


def prompt_feed(coords: npt.ArrayLike, labels: npt.ArrayLike, mask: Floats | None, low_res: int) -> Feed:
    """Decoder inputs besides the embedding; `mask` is (1, 1, low_res, low_res) logits."""
    return {
        "point_coords": np.asarray(coords, np.float32),
        "point_labels": np.asarray(labels, np.float32),
        "mask_input": np.zeros((1, 1, low_res, low_res), np.float32) if mask is None else mask,
        "has_mask_input": np.full(1, mask is not None, np.float32),
    }


def point_prompts(size: tuple[int, int], count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """`count` single positive points with SAM's padding point: (count, 2, 2) and (count, 2)."""
    height, width = size
    points = rng.uniform((0, 0), (width, height), (count, 2))
    coords = np.stack([points, np.zeros_like(points)], axis=1)
    return coords.astype(np.float32), np.tile(floats([POSITIVE, PADDING]), (count, 1))


def best_masks(masks: Floats, iou: Floats) -> Floats:
    """The mask with the highest predicted IoU of each prompt: (P, masks, h, w) -> (P, h, w)."""
    best: Floats = masks[np.arange(len(masks)), iou.argmax(1)]
    return best


def box_of(mask: Floats, size: tuple[int, int], scale: int = 4) -> Floats:
    """(4,) x0, y0, x1, y1 of a low-res mask in model pixels; the whole picture if the mask is empty."""
    height, width = size
    rows, cols = np.flatnonzero((mask > 0).any(1)), np.flatnonzero((mask > 0).any(0))
    if len(rows) < 2 or len(cols) < 2:
        return floats([0, 0, width, height])
    box = floats([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]) * scale
    return np.minimum(box, floats([width, height, width, height]))


def jittered_boxes(masks: Floats, size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """(P, 4) boxes of low-res masks (P, h, w), their sides moved a little, inside the picture."""
    height, width = size
    boxes = np.stack([box_of(mask, size) for mask in masks])
    jitter = rng.normal(0, JITTER, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return floats(np.clip(boxes + jitter, 0, floats([width, height, width, height])))


def box_prompts(boxes: Floats) -> tuple[Floats, Floats]:
    """(P, 4) boxes as two corner points each."""
    labels = np.tile(floats([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]), (len(boxes), 1))
    return boxes.reshape(-1, 2, 2), labels


def decoder_feeds(
    embedding: Floats, size: tuple[int, int], decode: Decode, low_res: int, rng: np.random.Generator, count: int = 4
) -> list[Feed]:
    """Prompt feeds for one image, without the embedding.

    `count` clicks, the boxes of the masks they gave, one mask prompt with a correcting click, and one box that is
    filled in as a mask prompt, too.
    """
    coords, labels = point_prompts(size, count, rng)
    clicks = prompt_feed(coords, labels, None, low_res)
    masks, iou = decode(embedding, clicks)
    best = best_masks(masks, iou)
    boxes = jittered_boxes(best, size, rng)
    hard = hard_click(coords[:1], labels[:1], best[0], size, rng)
    corners, corner_labels = box_prompts(boxes)
    filled = filled_boxes(corners[-1:], corner_labels[-1:], low_res)
    return [
        clicks,
        prompt_feed(corners, corner_labels, None, low_res),
        prompt_feed(*hard, best[:1, None], low_res),
        prompt_feed(corners[-1:], corner_labels[-1:], filled, low_res),
    ]


def hard_click(
    coords: Floats, labels: Floats, mask: Floats, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Adds a click where the mask is least certain: the hard prompt of interactive refinement."""
    height, width = (max(1, side // LOW_RES_STRIDE) for side in size)
    inside = mask[:height, :width]
    least = np.argsort(np.abs(inside), axis=None)[: max(1, inside.size // 50)]
    row, col = np.unravel_index(rng.choice(least), inside.shape)
    point = floats([[(col + 0.5) * LOW_RES_STRIDE, (row + 0.5) * LOW_RES_STRIDE]])
    label = floats([POSITIVE if rng.random() < 0.5 else NEGATIVE])
    return np.concatenate([coords, point[None]], axis=1), np.concatenate([labels, label[None]], axis=1)
