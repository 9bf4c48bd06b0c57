"""SA-1B's own tar shards as training samples, read through webdataset.

A shard holds pairs `<key>.jpg`, `<key>.json`; the json has `image` (width, height) and `annotations` with run-length
masks. Every reader (a worker of a process) takes its share of the shards, in an order shuffled anew each epoch, and
reads them from front to back, so nothing is unpacked and discs are read in sequence. A resumed run passes over the
photographs that were used already: it continues exactly when it has as many processes and workers as before. For the
same reason a picture that turns out to be damaged is replaced by the one before it, so that the count stays.
"""

import io
import json
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset.tariterators import group_by_keys, tar_file_iterator

from tinysam.datasets.coco import DataError, Mask, Photo, try_mask
from tinysam.datasets.reading import Damaged, Faults
from tinysam.distillation.making import LEAST_PIXELS, Rng, Sample, SampleMaker
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.samples import ATTEMPTS, Batch, collate, share_of

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


def read_shards(paths: Iterable[Path], faults: Faults) -> Iterator[dict[str, Any]]:
    """The files in tar shards, as webdataset groups them to samples; an empty one at the end of each shard.

    Of a damaged shard, what comes before the damage. Local files only: no URL, no command.
    """
    for path in paths:
        try:
            with path.open("rb") as stream:
                for file in tar_file_iterator(stream):
                    yield {**file, "__url__": str(path)}
        except (OSError, EOFError, ValueError, tarfile.TarError) as error:
            faults(Damaged(path, str(error).partition(" @ ")[0]))
        yield {}


def read_entry(entry: dict[str, Any], size: int, number: int) -> Photo:
    """The annotations of one photograph, masks too small for the model's input left out.

    Raises:
        Damaged: It is no photograph with a usable mask.
    """
    name = f"{entry.get('__url__')}: {entry.get('__key__')}"
    if "jpg" not in entry or "json" not in entry:
        raise Damaged(name, "expected a .jpg and a .json")
    try:
        content = json.loads(entry["json"])
        width, height = int(content["image"]["width"]), int(content["image"]["height"])
        read = [try_mask(annotation, width, height) for annotation in content["annotations"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(name, f"not SA-1B's json ({error!r})") from error
    if not entry["jpg"].endswith(JPEG_END):
        raise Damaged(name, "cut off picture")
    least = 2 * LEAST_PIXELS * (max(width, height) / size) ** 2
    masks = tuple(mask for mask in read if isinstance(mask, Mask) and mask.area >= least)
    if not masks:
        raise Damaged(name, "no usable mask")
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
        self.share = share_of(recipe, world)
        self.shards, self.recipe, self.start, self.rank, self.world = list(shards), recipe, start, rank, world
        self.faults = Faults(limit)
        self.recent: deque[Entry] = deque(maxlen=RECENT)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        # Workers are asked in turn: the one asked first makes the batch of step `start`, as it did before a stop.
        turn = (self.start + worker) % workers
        reader, readers = self.rank * workers + turn, self.world * workers
        if len(self.shards) < readers:
            raise DataError(f"{len(self.shards)} shards for {readers} readers: use fewer processes or workers")
        entries = self.entries(self.shards[reader::readers], reader)
        for _ in range(self.share * len(range(turn, self.start, workers))):
            self.next(entries)
        for _ in range(self.start + worker, self.recipe.steps, workers):
            yield collate([self.sample(self.next(entries), reader) for _ in range(self.share)])

    def next(self, entries: Iterator[Entry]) -> Entry:
        """The next photograph, remembered for pasting."""
        self.recent.append(next(entries))
        return self.recent[-1]

    def entries(self, shards: Sequence[Path], reader: int) -> Iterator[Entry]:
        """Usable photographs, epoch after epoch without end."""
        number = epoch = 0
        while True:
            before = number
            order = np.random.default_rng([self.recipe.seed, reader, epoch]).permutation(len(shards))
            files = read_shards([shards[i] for i in order], self.faults)
            for entry in group_by_keys(files, handler=self.ungrouped):
                try:
                    photo = read_entry(entry, self.recipe.image_size, number)
                except Damaged as error:
                    self.faults(error)
                    continue
                yield Entry(number, photo, entry["jpg"])
                number += 1
            if number == before:
                raise DataError(f"no usable photograph in {len(shards)} shards, such as {shards[0]}")
            epoch += 1

    def ungrouped(self, error: Exception) -> bool:
        """Passes over a file with no place in a sample, such as a second one of its name. True: webdataset goes on."""
        name, _, why = str(error.args[0]).partition(": ")
        self.faults(Damaged(name, why))
        return True

    def sample(self, entry: Entry, reader: int) -> Sample:
        """A sample of the photograph that was read last; if it cannot be used, of one before it."""
        for source in reversed(self.recent):
            sample = self.attempt(source, entry.number, reader)
            if sample is not None:
                return sample
        raise DataError(f"{entry.photo.path}: cannot be used, and none of {len(self.recent) - 1} before it")

    def attempt(self, source: Entry, number: int, reader: int) -> Sample | None:
        """A sample of one photograph; the last attempt shows all of it, in which its masks are large enough."""
        for attempt in range(ATTEMPTS + 1):
            recipe = self.recipe if attempt < ATTEMPTS else replace(self.recipe, augmented=False)
            rng = np.random.default_rng([self.recipe.seed, reader, number, attempt])
            try:
                sample = SampleMaker(recipe, self.decode, self.thing).make(source.number, source.photo, rng)
            except Damaged as error:
                self.faults(error)
                continue
            if sample is not None:
                return sample
        return None

    def decode(self, photo: Photo) -> Image.Image:
        """One of the photographs read lately."""
        entry = next(entry for entry in reversed(self.recent) if entry.photo is photo)
        with Image.open(io.BytesIO(entry.jpeg)) as opened:
            return opened.convert("RGB")

    def thing(self, rng: Rng) -> Photo:
        """A photograph read lately."""
        return self.recent[rng.integers(len(self.recent))].photo


def shard_loader(batches: ShardBatches, workers: int) -> DataLoader[Batch]:
    """Batches in order, made ahead by `workers` processes."""
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
