"""SA-1B's own tar shards as training samples, read through webdataset.

A shard holds pairs `<key>.jpg`, `<key>.json`; the json has `image` (width, height) and `annotations` with run-length
masks. Every reader (a worker of a process) takes its share of the shards, in an order shuffled anew each epoch, and
reads them from front to back, so nothing is unpacked and discs are read in sequence. A resumed run passes over the
photographs that were used already: it continues exactly when it has as many processes and workers as before.
"""

import io
import json
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset.tariterators import group_by_keys, tar_file_expander

from tinysam.distillation.making import LEAST_PIXELS, Rng, Sample, SampleMaker
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.samples import ATTEMPTS, Batch, collate
from tinysam.evaluation.coco import DataError, Mask, Photo, try_mask

log = logging.getLogger(__name__)

JPEG_END = b"\xff\xd9"
RECENT = 32
"""Photographs kept in memory whose objects may be pasted on others."""


class Entry(NamedTuple):
    """A photograph in a shard."""

    number: int
    """Counts the usable photographs of one reader."""
    photo: Photo
    jpeg: bytes


def find_shards(folder: Path) -> list[Path]:
    """The folder's tar files by name; DataError if there are none."""
    found = sorted(folder.glob("*.tar"))
    if not found:
        raise DataError(f"{folder}: no .tar shards")
    return found


class Faults:
    """Counts what was skipped, and stops when it is too much."""

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0

    def __call__(self, error: Exception | str) -> bool:
        """Counts one; DataError above the limit. True, so that webdataset goes on."""
        self.count += 1
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        log.warning("skipped (%d so far): %s", self.count, reason)
        if self.count > self.limit:
            raise DataError(f"more than {self.limit} damaged shards or photographs, the last: {reason}")
        return True


def open_shards(paths: Iterable[Path], faults: Faults) -> Iterator[dict[str, Any]]:
    """Opened shards, as webdataset's expander takes them. Local files only: no URL, no command."""
    for path in paths:
        if not path.is_file():
            faults(f"{path}: no such file")
            continue
        with path.open("rb") as stream:
            yield {"url": str(path), "stream": stream}


def read_entry(entry: dict[str, Any], size: int, number: int) -> Photo:
    """The annotations of one photograph, masks too small for the model's input left out.

    Raises:
        ValueError: It is no photograph with a usable mask.
    """
    name = f"{entry.get('__url__')}: {entry.get('__key__')}"
    if "jpg" not in entry or "json" not in entry:
        raise ValueError(f"{name}: expected a .jpg and a .json")
    try:
        content = json.loads(entry["json"])
        width, height = int(content["image"]["width"]), int(content["image"]["height"])
        read = [try_mask(annotation, width, height) for annotation in content["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name}: not SA-1B's json ({error!r})") from error
    if not entry["jpg"].endswith(JPEG_END):
        raise ValueError(f"{name}: cut off picture")
    least = 2 * LEAST_PIXELS * (max(width, height) / size) ** 2
    masks = tuple(mask for mask in read if isinstance(mask, Mask) and mask.area >= least)
    if not masks:
        raise ValueError(f"{name}: no usable mask")
    return Photo(number, Path(name), width, height, masks)


class ShardBatches(IterableDataset[Batch]):
    """Batches of one process, from step `start` on.

    Args:
        shards: tar files.
        recipe: what to make.
        start: first step.
        rank: of this process.
        world: number of processes.
        limit: how many damaged shards or photographs each reader passes over.
    """

    def __init__(
        self, shards: Sequence[Path], recipe: Recipe, start: int, rank: int = 0, world: int = 1, limit: int = 100
    ) -> None:
        if recipe.batch % world:
            raise ValueError(f"batch {recipe.batch} does not divide over {world} processes")
        self.shards, self.recipe, self.start, self.rank, self.world = list(shards), recipe, start, rank, world
        self.limit = limit
        self.recent: deque[Entry] = deque(maxlen=RECENT)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        # Workers are asked in turn: the one asked first makes the batch of step `start`, as it did before a stop.
        turn = (self.start + worker) % workers
        reader, readers = self.rank * workers + turn, self.world * workers
        if len(self.shards) < readers:
            raise DataError(f"{len(self.shards)} shards for {readers} readers: use fewer processes or workers")
        share = self.recipe.batch // self.world
        entries = self.entries(self.shards[reader::readers], reader)
        for _ in range(share * len(range(turn, self.start, workers))):
            self.next(entries)
        for _ in range(self.start + worker, self.recipe.steps, workers):
            yield collate([self.sample(self.next(entries), reader) for _ in range(share)])

    def next(self, entries: Iterator[Entry]) -> Entry:
        """The next photograph, remembered for pasting."""
        self.recent.append(next(entries))
        return self.recent[-1]

    def entries(self, shards: Sequence[Path], reader: int) -> Iterator[Entry]:
        """Usable photographs, epoch after epoch without end."""
        faults, number = Faults(self.limit), 0
        epoch = 0
        while True:
            before = number
            order = np.random.default_rng([self.recipe.seed, reader, epoch]).permutation(len(shards))
            files = tar_file_expander(open_shards([shards[i] for i in order], faults), handler=faults)
            for entry in group_by_keys(files, handler=faults):
                try:
                    photo = read_entry(entry, self.recipe.image_size, number)
                except ValueError as error:
                    faults(error)
                    continue
                yield Entry(number, photo, entry["jpg"])
                number += 1
            if number == before:
                raise DataError(f"no usable photograph in {len(shards)} shards, such as {shards[0]}")
            epoch += 1

    def sample(self, entry: Entry, reader: int) -> Sample:
        """A sample of one photograph; the last attempt shows all of it, in which its masks are large enough."""
        for attempt in range(ATTEMPTS + 1):
            recipe = self.recipe if attempt < ATTEMPTS else replace(self.recipe, augmented=False)
            rng = np.random.default_rng([self.recipe.seed, reader, entry.number, attempt])
            made = SampleMaker(recipe, self.decode, self.thing).make(entry.number, entry.photo, rng)
            if made is not None:
                return made
        raise DataError(f"{entry.photo.path}: no mask is visible at {self.recipe.image_size} pixels")

    def decode(self, photo: Photo) -> Image.Image:
        """One of the photographs read lately; DataError if it is damaged in a way that its ends do not show."""
        entry = next(entry for entry in reversed(self.recent) if entry.photo is photo)
        try:
            with Image.open(io.BytesIO(entry.jpeg)) as opened:
                return opened.convert("RGB")
        except (OSError, SyntaxError) as error:
            raise DataError(f"{photo.path}: damaged picture ({error})") from error

    def thing(self, rng: Rng) -> Photo:
        """A photograph read lately."""
        return self.recent[rng.integers(len(self.recent))].photo


def shard_loader(batches: ShardBatches, workers: int) -> DataLoader[Batch]:
    """Batches in order, made ahead by `workers` processes."""
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
