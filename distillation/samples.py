"""Training samples. Sample number i of a seed is always the same, whatever process or worker makes it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tinysam.distillation import augment
from tinysam.distillation.pixels import PixelCache, read_rgb
from tinysam.distillation.points import sample_points
from tinysam.distillation.prompts import first_prompt
from tinysam.distillation.recipe import Recipe
from tinysam.evaluation.coco import Photo

Rng = np.random.Generator
Mask = NDArray[np.bool_]

LEAST_PIXELS = 24
"""Smaller masks (after cropping) are not trained on."""
PASTED_SIDE = (0.15, 0.6)
"""Long side of a pasted object, in parts of the model's input."""
ATTEMPTS = 8
"""How many samples may turn out empty before the set counts as unusable."""


@dataclass
class Batch:
    """B photographs with K prompts each; P = B * K."""

    pixels: Tensor
    """(B, 3, S, S) uint8 RGB."""
    shown: Tensor
    """(B, 2) height and width of the part that is photograph; the rest is padding."""
    masks: Tensor
    """(P, S, S) bool: the truth."""
    coords: Tensor
    """(P, 2, 2) x and y of the first prompt in pixels of the input."""
    labels: Tensor
    """(P, 2) labels of `tinysam.models.prompt_encoder`."""
    points: Tensor
    """(P, N, 2) where the mask losses are measured, in [0, 1] of the input."""
    truth: Tensor
    """(P, N) mask at these points, 0 or 1."""
    area: Tensor
    """(P, N) area each point stands for."""
    picks: Tensor
    """(P, max_rounds) uniform random numbers for the further clicks."""
    indexes: Tensor
    """(B,) which photographs of the set."""


def choose(photo: Photo, view: augment.View, most: int, rng: Rng) -> list[Mask]:
    """Up to `most` random masks of the photograph that are visible in the view."""
    x0, y0, x1, y1 = view.box
    found: list[Mask] = []
    for i in rng.permutation(len(photo.masks)):
        a, b, c, d = photo.masks[i].box
        if c <= x0 or a >= x1 or d <= y0 or b >= y1:
            continue
        mask = view.mask(photo.masks[i].decode())
        if mask.sum() >= LEAST_PIXELS:
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


class Samples(Dataset[dict[str, NDArray[np.generic]]]):
    """Photographs as training samples.

    Args:
        photos: with masks.
        recipe: what to make of them.
        backgrounds: further photographs without masks, on which objects are pasted.
        cache_bytes: how much memory decoded photographs may take, per worker.
    """

    def __init__(
        self, photos: Sequence[Photo], recipe: Recipe, backgrounds: Sequence[Photo] = (), cache_bytes: int = 2 << 30
    ) -> None:
        self.photos, self.recipe, self.backgrounds = [*photos, *backgrounds], recipe, backgrounds
        self.things = list(photos)
        self.cache = PixelCache(cache_bytes)

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def __getitem__(self, number: int) -> dict[str, NDArray[np.generic]]:
        for attempt in range(ATTEMPTS):
            rng = np.random.default_rng([self.recipe.seed, number, attempt])
            sample = self.make(rng)
            if sample is not None:
                return sample
        raise ValueError(f"no usable masks in {ATTEMPTS} photographs in a row: are the annotations right?")

    def read(self, photo: Photo) -> Image.Image:
        """The decoded photograph; ValueError if it has not the size its annotations say."""
        image = self.cache.read(photo.path)
        if image.size != (photo.width, photo.height):
            annotated = f"{photo.width} x {photo.height}"
            raise ValueError(f"{photo.path}: {image.width} x {image.height} pixels, its annotations say {annotated}")
        return image

    def view(self, photo: Photo, rng: Rng) -> augment.View:
        """The part of the photograph to show."""
        recipe = self.recipe
        if not recipe.augmented:
            return augment.whole(photo, recipe.image_size)
        if not photo.masks or rng.uniform() < recipe.whole_share:
            return augment.whole(photo, recipe.image_size, flip=rng.uniform() < 0.5)
        around = photo.masks[rng.integers(len(photo.masks))]
        return augment.crop(photo, recipe.image_size, around, recipe.smallest_crop, rng)

    def make(self, rng: Rng) -> dict[str, NDArray[np.generic]] | None:
        """One sample, or None when no mask is visible in it."""
        recipe = self.recipe
        index = int(rng.integers(len(self.photos)))
        photo = self.photos[index]
        photograph = self.read(photo)
        view = self.view(photo, rng)
        image = view.image(photograph).copy()
        masks = choose(photo, view, recipe.prompts, rng)
        if recipe.augmented and (not photo.masks or rng.uniform() < recipe.paste_share):
            for _ in range(int(rng.integers(1, 4))):
                masks = self.paste(image, masks, rng)[: recipe.prompts]
        masks = [mask for mask in masks if mask.sum() >= LEAST_PIXELS]
        if not masks:
            return None
        if recipe.augmented:
            image = augment.colour(image, recipe.colour, rng)
        return self.prompt(index, image, masks, rng)

    def paste(self, image: augment.Pixels, masks: list[Mask], rng: Rng) -> list[Mask]:
        """Pastes an object of another photograph; the visible masks, the new one first."""
        photo = self.things[rng.integers(len(self.things))]
        chosen = photo.masks[rng.integers(len(photo.masks))]
        x0, y0, x1, y1 = chosen.box
        side = self.recipe.image_size * np.exp(rng.uniform(*np.log(PASTED_SIDE)))
        scale = side / max(x1 - x0, y1 - y0)
        size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        view = augment.View(chosen.box, *size, flip=rng.uniform() < 0.5)
        thing = augment.colour(view.image(self.read(photo)), self.recipe.colour, rng)
        placed = augment.paste(image, masks, thing, view.mask(chosen.decode()), rng)
        return masks if placed is None else [placed, *masks]

    def prompt(self, index: int, image: augment.Pixels, masks: list[Mask], rng: Rng) -> dict[str, NDArray[np.generic]]:
        """Pads to the square input and draws the prompts and the points of the losses."""
        size, count = self.recipe.image_size, self.recipe.prompts
        height, width = image.shape[:2]
        padded = np.zeros((count, size, size), bool)
        boxes = rng.permutation(count) < round(self.recipe.box_share * count)
        prompts, points = [], []
        for k in range(count):
            padded[k, :height, :width] = masks[k % len(masks)]
            prompts.append(first_prompt(padded[k], bool(boxes[k]), rng))
            points.append(sample_points(padded[k], rng))
        coords, labels = (np.stack(part) for part in zip(*prompts, strict=True))
        at, truth, area = (np.stack(part) for part in zip(*points, strict=True))
        picks = rng.random((count, self.recipe.max_rounds), dtype=np.float32)
        return {
            "pixels": square(image, size),
            "shown": np.array([height, width]),
            "masks": padded,
            "coords": coords,
            "labels": labels,
            "points": at,
            "truth": truth,
            "area": area,
            "picks": picks,
            "indexes": np.array(index),
        }


PER_PHOTO = ("pixels", "shown", "indexes")


def collate(samples: list[dict[str, NDArray[np.generic]]]) -> Batch:
    """Samples to one batch: photographs stacked, prompts of all photographs in one row."""
    join = {name: np.stack if name in PER_PHOTO else np.concatenate for name in samples[0]}
    return Batch(**{name: torch.from_numpy(join[name]([s[name] for s in samples])) for name in samples[0]})


class Numbers(Sampler[list[int]]):
    """Sample numbers of this process, a list per step, from `start` to the recipe's last step."""

    def __init__(self, recipe: Recipe, start: int, rank: int = 0, world: int = 1) -> None:
        if recipe.batch % world:
            raise ValueError(f"batch {recipe.batch} does not divide over {world} processes")
        self.recipe, self.start, self.rank, self.share = recipe, start, rank, recipe.batch // world

    def __len__(self) -> int:
        return self.recipe.steps - self.start

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.recipe.steps):
            first = step * self.recipe.batch + self.rank * self.share
            yield list(range(first, first + self.share))


def loader(samples: Samples, numbers: Numbers, workers: int) -> DataLoader[Batch]:
    """Batches in order, made ahead by `workers` processes."""
    return DataLoader(
        samples, batch_sampler=numbers, num_workers=workers, collate_fn=collate, prefetch_factor=4 if workers else None
    )
