"""Training samples. Sample number i of a seed is always the same, whatever process or worker makes it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tinysam.datasets.coco import DataError, Photo
from tinysam.datasets.reading import Damaged, Faults, PixelCache
from tinysam.distillation.making import Rng, Sample, SampleMaker
from tinysam.distillation.recipe import Recipe

ATTEMPTS = 8
"""How many samples may turn out empty before the set counts as unusable."""
UNUSABLE = f"nothing usable in {ATTEMPTS} photographs in a row: are pictures and annotations right?"


def nothing() -> Tensor:
    """What a batch without prompts has in their place."""
    return torch.empty(0)


@dataclass
class Batch:
    """B photographs with K prompts each, P = B * K; in mode decoupled without prompts."""

    pixels: Tensor
    """(B, 3, S, S) uint8 RGB."""
    shown: Tensor
    """(B, 2) height and width of the part that is photograph; the rest is padding."""
    indexes: Tensor
    """(B,) which photographs of the set."""
    masks: Tensor = field(default_factory=nothing)
    """(P, S, S / 8) uint8: the truth, eight pixels in each byte, the first the highest bit."""
    coords: Tensor = field(default_factory=nothing)
    """(P, 2, 2) x and y of the first prompt in pixels of the input."""
    labels: Tensor = field(default_factory=nothing)
    """(P, 2) labels of `tinysam.models.prompt_encoder`."""
    points: Tensor = field(default_factory=nothing)
    """(P, N, 2) where the mask losses are measured, in [0, 1] of the input."""
    truth: Tensor = field(default_factory=nothing)
    """(P, N) mask at these points, 0 or 1."""
    others: Tensor = field(default_factory=nothing)
    """(P, A, N) bool: up to A other masks that hold the click at these points; the same mask where there is none."""
    area: Tensor = field(default_factory=nothing)
    """(P, N) area each point stands for."""
    picks: Tensor = field(default_factory=nothing)
    """(P, max_rounds) uniform random numbers for the further clicks."""

    def pin_memory(self) -> "Batch":
        """The batch in memory that a GPU can read by itself; called by the loader."""
        return Batch(**{name: value.pin_memory() for name, value in vars(self).items()})


class Draw:
    """Draws photographs so that no source dominates: a source of n photographs in proportion to n ** power."""

    def __init__(self, photos: Sequence[Photo], power: float) -> None:
        sizes = Counter(photo.source for photo in photos)
        weights = np.array([sizes[photo.source] ** (power - 1.0) for photo in photos])
        self.bounds = np.cumsum(weights) / weights.sum()

    def __call__(self, rng: Rng) -> int:
        """The number of a photograph."""
        return min(int(np.searchsorted(self.bounds, rng.random(), side="right")), len(self.bounds) - 1)


class Samples(Dataset[Sample]):
    """Photographs as training samples.

    Args:
        photos: those without masks get objects of the others pasted on.
        recipe: what to make of them.
        cache_bytes: how much memory decoded photographs may take, per worker.
        limit: how many damaged photographs are passed over, per worker.
    """

    def __init__(self, photos: Sequence[Photo], recipe: Recipe, cache_bytes: int = 2 << 30, limit: int = 100) -> None:
        self.recipe, self.photos, self.faults = recipe, photos, Faults(limit)
        self.draw = Draw(photos, recipe.source_power)
        things = [photo for photo in photos if photo.masks]
        self.draw_thing, self.things = Draw(things, recipe.source_power), things
        cache = PixelCache(cache_bytes)
        self.maker = SampleMaker(recipe, lambda photo: cache.read(photo.path), self.thing)

    def thing(self, rng: Rng) -> Photo:
        """A photograph with masks."""
        return self.things[self.draw_thing(rng)]

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch

    def drawn(self, number: int) -> Iterator[tuple[int, Rng]]:
        """The photographs to try for sample number `number`, each with its random numbers."""
        for attempt in range(ATTEMPTS):
            rng = np.random.default_rng([self.recipe.seed, number, attempt])
            yield self.draw(rng), rng

    def __getitem__(self, number: int) -> Sample:
        for index, rng in self.drawn(number):
            try:
                sample = self.maker.make(index, self.photos[index], rng)
            except Damaged as error:
                self.faults(error)
                continue
            if sample is not None:
                return sample
        raise DataError(UNUSABLE)


PER_PHOTO = ("pixels", "shown", "indexes")


def collate(samples: list[Sample]) -> Batch:
    """Samples to one batch: photographs stacked, prompts of all photographs in one row."""
    join = {name: np.stack if name in PER_PHOTO else np.concatenate for name in samples[0]}
    return Batch(**{name: torch.from_numpy(join[name]([s[name] for s in samples])) for name in samples[0]})


def share_of(recipe: Recipe, world: int) -> int:
    """Photographs per step of each of `world` processes; ValueError if some would have more than others."""
    if recipe.batch % world:
        raise ValueError(f"batch {recipe.batch} does not divide over {world} processes")
    return recipe.batch // world


class Numbers(Sampler[list[int]]):
    """Sample numbers of this process, a list per step, from `start` to the recipe's last step."""

    def __init__(self, recipe: Recipe, start: int, rank: int = 0, world: int = 1) -> None:
        self.share = share_of(recipe, world)
        self.recipe, self.start, self.rank, self.world = recipe, start, rank, world

    def __len__(self) -> int:
        return self.recipe.steps - self.start

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.recipe.steps):
            first = step * self.recipe.batch + self.rank * self.share
            yield list(range(first, first + self.share))


def loader(samples: Samples, numbers: Numbers, workers: int, pin: bool = False) -> DataLoader[Batch]:
    """Batches in order, made ahead by `workers` processes; `pin`: for a GPU, see `Batch.pin_memory`."""
    return DataLoader(
        samples,  # type: ignore[arg-type]
        batch_sampler=numbers,
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=4 if workers else None,
        pin_memory=pin,
    )
