"""From a photograph with masks to a training sample: view, pasted objects, prompts, points of the losses."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinysam.datasets.coco import Photo
from tinysam.datasets.prompts import extent, first_prompt
from tinysam.datasets.reading import open_annotated, read_rgb
from tinysam.distillation import augment
from tinysam.distillation.losses import sample_points
from tinysam.distillation.recipe import Recipe

Rng = np.random.Generator
Mask = NDArray[np.bool_]
Sample = dict[str, NDArray[np.generic]]

LEAST_PIXELS = 24
"""Smaller masks (after cropping) are not trained on."""
PASTED_SIDE = (0.15, 0.6)
"""Long side of a pasted object, in parts of the model's input."""
TILES = (3, 9)
"""Fewest and most textures of a mosaic."""
OTHERS = 2
"""Other answers to a click that the loss may look at."""
SAME = 0.9
"""Masks of at least this IoU are one answer, not two."""


def choose(photo: Photo, view: augment.View, most: int, rng: Rng) -> list[Mask]:
    """Up to `most` random masks of the photograph that are visible in the view."""
    x0, y0, x1, y1 = view.box
    found: list[Mask] = []
    for i in rng.permutation(len(photo.masks)):
        a, b, c, d = photo.masks[i].box
        if c <= x0 or a >= x1 or d <= y0 or b >= y1:
            continue
        mask = view.mask(photo.masks[i].decode())
        if np.count_nonzero(mask) >= LEAST_PIXELS:
            found.append(mask)
        if len(found) == most:
            break
    return found


def whole_pixels(photo: Photo, size: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """(3, size, size) uint8 of the whole photograph and the height and width of the part that is not padding."""
    image = augment.whole(photo, size).image(read_rgb(photo.path))
    return square(image, size), (image.shape[0], image.shape[1])


def square(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(h, w, 3) -> (3, size, size), zeros right and below."""
    pixels = np.zeros((3, size, size), np.uint8)
    pixels[:, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1)
    return pixels


def iou(one: Mask, other: Mask) -> float:
    """Intersection over union of two masks, one of them not empty."""
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def others_at(masks: Sequence[Mask], mask: Mask, click: NDArray[np.float32], rng: Rng) -> list[Mask]:
    """Up to `OTHERS` random masks besides `mask` that a click (x, y) may mean as well: its whole, its parts."""
    x, y = click.astype(np.intp)
    found: list[Mask] = []
    for i in rng.permutation(len(masks)):
        other = masks[i]
        if other[y, x] and all(iou(other, known) < SAME for known in [mask, *found]):
            found.append(other)
        if len(found) == OTHERS:
            break
    return found


def truth_at(masks: Sequence[Mask], points: NDArray[np.float32], size: int) -> NDArray[np.bool_]:
    """(len(masks), N) of (h, w) masks at (N, 2) points in [0, 1] of the square input; False in the padding."""
    height, width = masks[0].shape
    x, y = (points * size).astype(np.intp).T
    inside = (x < width) & (y < height)
    x, y = x.clip(max=width - 1), y.clip(max=height - 1)
    return np.stack([mask[y, x] & inside for mask in masks])


def picture(index: int, image: NDArray[np.uint8], size: int) -> Sample:
    """The part of a sample that is about the photograph and not about prompts."""
    return {"pixels": square(image, size), "shown": np.array(image.shape[:2]), "indexes": np.array(index)}


class SampleMaker:
    """Makes samples of photographs.

    Args:
        recipe: what to make.
        open_photo: decodes a photograph, RGB.
        thing: draws a photograph whose objects may be pasted on others.
    """

    def __init__(
        self, recipe: Recipe, open_photo: Callable[[Photo], Image.Image], thing: Callable[[Rng], Photo]
    ) -> None:
        self.recipe, self.open_photo, self.thing = recipe, open_photo, thing

    def view(self, photo: Photo, rng: Rng) -> augment.View:
        """The part of the photograph to show."""
        recipe = self.recipe
        if not recipe.augmented:
            return augment.whole(photo, recipe.image_size)
        if not photo.masks or rng.uniform() < recipe.whole_share:
            return augment.whole(photo, recipe.image_size, flip=rng.uniform() < 0.5)
        around = photo.masks[rng.integers(len(photo.masks))]
        return augment.crop(photo, recipe.image_size, around, recipe.smallest_crop, rng)

    def make(self, index: int, photo: Photo, rng: Rng) -> Sample | None:
        """A sample of photograph number `index`, or None when no mask is visible in it and the mode needs one.

        Raises:
            Damaged: It, or one that gives it objects or textures, cannot be used.
        """
        recipe = self.recipe
        if not recipe.needs_masks and not recipe.augmented:
            return self.whole(index, photo)
        if recipe.augmented and rng.uniform() < recipe.mosaic_share:
            image, masks = self.mosaic(rng)
        else:
            image, masks = self.show(photo, rng)
        if recipe.augmented:
            image = augment.colour(image, recipe.colour, rng)
            if rng.uniform() < recipe.fault_share:
                image = augment.spoil(image, rng)
        if not recipe.needs_masks:
            return picture(index, image, recipe.image_size)
        masks = [mask for mask in masks if np.count_nonzero(mask) >= LEAST_PIXELS]
        return self.prompt(index, image, masks, rng) if masks else None

    def show(self, photo: Photo, rng: Rng) -> tuple[augment.Pixels, list[Mask]]:
        """(h, w, 3) a view of the photograph, perhaps with pasted objects, and (h, w) masks, more than prompts."""
        recipe = self.recipe
        photograph = open_annotated(photo, self.open_photo)
        view = self.view(photo, rng)
        image = view.image(photograph).copy()
        masks = choose(photo, view, 2 * recipe.prompts, rng)
        if recipe.augmented and (not photo.masks or rng.uniform() < recipe.paste_share):
            for _ in range(int(rng.integers(1, 4))):
                masks = self.paste(image, masks, rng)
        return image, masks

    def mosaic(self, rng: Rng) -> tuple[augment.Pixels, list[Mask]]:
        """(size, size, 3) cells with textures of as many photographs, and their (size, size) masks."""
        size, count = self.recipe.image_size, int(rng.integers(TILES[0], TILES[1] + 1))
        image, cells = np.zeros((size, size, 3), np.uint8), augment.cells(size, count, rng)
        masks = [cells == k for k in range(count)]
        for mask in masks:
            if mask.any():
                x0, y0, x1, y1 = extent(mask)
                piece = image[y0:y1, x0:x1]
                inside = mask[y0:y1, x0:x1]
                piece[inside] = self.texture(x1 - x0, y1 - y0, rng)[inside]
        return image, [masks[k] for k in rng.permutation(count)]

    def texture(self, width: int, height: int, rng: Rng) -> augment.Pixels:
        """(height, width, 3) of a random photograph, recoloured."""
        photo = self.thing(rng)
        shown = augment.texture(photo, width, height, rng).image(open_annotated(photo, self.open_photo))
        return augment.colour(shown, self.recipe.colour, rng)

    def whole(self, index: int, photo: Photo) -> Sample:
        """The whole photograph alone: the same in every epoch. Damaged if it cannot be used."""
        size = self.recipe.image_size
        return picture(index, augment.whole(photo, size).image(open_annotated(photo, self.open_photo)), size)

    def paste(self, image: augment.Pixels, masks: list[Mask], rng: Rng) -> list[Mask]:
        """Pastes an object of another photograph; the visible masks, the new one first."""
        photo = self.thing(rng)
        chosen = photo.masks[rng.integers(len(photo.masks))]
        x0, y0, x1, y1 = chosen.box
        side = self.recipe.image_size * np.exp(rng.uniform(*np.log(PASTED_SIDE)))
        scale = side / max(x1 - x0, y1 - y0)
        size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        view = augment.View(chosen.box, *size, flip=rng.uniform() < 0.5)
        if rng.uniform() < self.recipe.texture_share:
            thing = self.texture(*size, rng)
        else:
            thing = augment.colour(view.image(open_annotated(photo, self.open_photo)), self.recipe.colour, rng)
        placed = augment.paste(image, masks, thing, view.cover(chosen.decode()), rng)
        return masks if placed is None else [placed, *masks]

    def prompt(self, index: int, image: augment.Pixels, masks: list[Mask], rng: Rng) -> Sample:
        """Pads to the square input and draws the prompts and the points of the losses."""
        size, count = self.recipe.image_size, self.recipe.prompts
        height, width = image.shape[:2]
        padded = np.zeros((count, size, size), bool)
        boxes = rng.permutation(count) < round(self.recipe.box_share * count)
        prompts, points, others = [], [], []
        for k in range(count):
            mask = masks[k % min(count, len(masks))]
            padded[k, :height, :width] = mask
            prompts.append(first_prompt(padded[k], bool(boxes[k]), rng))
            points.append(sample_points(padded[k], rng))
            found = [] if boxes[k] else others_at(masks, mask, prompts[k][0][0], rng)
            others.append(truth_at([*found, *[mask] * OTHERS][:OTHERS], points[k][0], size))
        coords, labels = (np.stack(part) for part in zip(*prompts, strict=True))
        at, truth, area = (np.stack(part) for part in zip(*points, strict=True))
        picks = rng.random((count, self.recipe.max_rounds), dtype=np.float32)
        return {
            **picture(index, image, size),
            "masks": np.packbits(padded, axis=-1),
            "coords": coords,
            "labels": labels,
            "points": at,
            "truth": truth,
            "others": np.stack(others),
            "area": area,
            "picks": picks,
        }
