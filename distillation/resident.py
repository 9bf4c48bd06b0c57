"""Photographs that stay on the device: a step then copies nothing.

Possible where samples are the same in every epoch: mode decoupled with whole photographs (`--no-augmented`). At 448
pixels a photograph takes 0.6 MB and its teacher embedding 0.4 MB.
"""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from tinysam.datasets.coco import DataError
from tinysam.datasets.reading import Damaged
from tinysam.distillation.device import Device
from tinysam.distillation.making import Sample
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.samples import UNUSABLE, Batch, Numbers, Samples, collate

PIECE = 64
"""Photographs copied to the device at once."""
SHARE = 0.5
"""Of the device's free memory; the rest is for the model's activations."""


def can_stay(recipe: Recipe) -> bool:
    """Whether samples are the same in every epoch."""
    return not recipe.needs_masks and not recipe.augmented


def bytes_of(photos: int, size: int, channels: int = 256) -> int:
    """Memory of this many photographs and their teacher embeddings in fp16."""
    return photos * (3 * size**2 + 2 * channels * (size // 16) ** 2)


def fits(recipe: Recipe, photos: int, device: Device) -> bool:
    """Whether the photographs can stay on a GPU and have room there."""
    return can_stay(recipe) and bytes_of(photos, recipe.image_size) < SHARE * device.free_bytes()


class Once(Dataset[Sample | Damaged]):
    """Every photograph of a set once, in order; what is wrong with it in its place if it cannot be used."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples.photos)

    def __getitem__(self, index: int) -> Sample | Damaged:
        try:
            return self.samples.maker.whole(index, self.samples.photos[index])
        except Damaged as error:
            return error


def as_they_are(found: list[Sample | Damaged]) -> list[Sample | Damaged]:
    """No collation."""
    return found


class Resident:
    """The batches that `loader` would make, taken from a set that lies on the device.

    Args:
        samples: the set; `can_stay` must hold for its recipe.
        numbers: which samples, a list per step.
        device: where they stay.
        workers: processes that read the photographs, once.

    Raises:
        DataError: More photographs than the set's limit are damaged.
    """

    def __init__(self, samples: Samples, numbers: Numbers, device: Device, workers: int = 0) -> None:
        self.samples, self.numbers = samples, numbers
        self.place: dict[int, int] = {}
        """From a photograph's number to its place in `pixels`."""
        pieces = [device.take(piece) for piece in self.read(workers)]
        if not pieces:
            raise DataError(UNUSABLE)
        self.pixels, self.shown = (torch.cat([vars(p)[name] for p in pieces]) for name in ("pixels", "shown"))

    def read(self, workers: int) -> Iterator[Batch]:
        """All usable photographs, some at once."""
        once = Once(self.samples)
        for found in DataLoader(once, PIECE, num_workers=workers, collate_fn=as_they_are):
            usable = [sample for sample in found if not isinstance(sample, Damaged)]
            for fault in found:
                if isinstance(fault, Damaged):
                    self.samples.faults(fault)
            for sample in usable:
                self.place[int(sample["indexes"])] = len(self.place)
            if usable:
                yield collate(usable)

    def choose(self, number: int) -> int:
        """The photograph of this sample; DataError if only damaged ones come up."""
        for index, _ in self.samples.drawn(number):
            if index in self.place:
                return index
        raise DataError(UNUSABLE)

    def __iter__(self) -> Iterator[Batch]:
        for numbers in self.numbers:
            indexes = [self.choose(number) for number in numbers]
            places = torch.tensor([self.place[index] for index in indexes], device=self.pixels.device)
            yield Batch(self.pixels[places], self.shown[places], torch.tensor(indexes))
