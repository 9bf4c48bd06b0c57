"""Photographs decoded: ahead of their use, kept in memory while there is room, and counted if they are damaged."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL import Image

from tinysam.datasets.coco import UNREADABLE, DataError, Photo

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Value = TypeVar("Value")


class Damaged(ValueError):
    """A shard or photograph that cannot be used; the message is one line."""

    def __init__(self, where: Path | str, why: object) -> None:
        super().__init__(f"{where}: {why}".splitlines()[0])
        self.where = str(where)


class Faults:
    """Counts damaged shards and photographs, each of them once however often it is met.

    Args:
        limit: how many are passed over.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seen: set[str] = set()

    def __call__(self, error: Damaged) -> None:
        """Counts one; DataError above the limit."""
        if error.where in self.seen:
            return
        self.seen.add(error.where)
        log.warning("skipped (%d so far): %s", len(self.seen), error)
        if len(self.seen) > self.limit:
            raise DataError(f"more than {self.limit} damaged shards or photographs, the last: {error}")


def read_rgb(path: Path) -> Image.Image:
    """The photograph as RGB, decoded, in the frame of its annotations; one of `UNREADABLE` if there is none.

    COCO's annotations count pixels as stored, so an EXIF orientation is not applied.
    """
    with Image.open(path) as image:
        return image.convert("RGB")


def open_annotated(photo: Photo, read: Callable[[Photo], Image.Image]) -> Image.Image:
    """The decoded photograph; Damaged if it cannot be read or has not the size its annotations say."""
    try:
        image = read(photo)
    except UNREADABLE as error:
        raise Damaged(photo.path, f"cannot be read ({error})") from error
    if image.size != (photo.width, photo.height):
        sizes = f"{image.width} x {image.height} pixels, its annotations say {photo.width} x {photo.height}"
        raise Damaged(photo.path, sizes)
    return image


def read_photo(photo: Photo) -> tuple[Photo, Image.Image | None]:
    """The photograph with its decoded picture; None, and a line in the log, if it is damaged."""
    try:
        return photo, open_annotated(photo, lambda photo: read_rgb(photo.path))
    except Damaged as error:
        log.warning("left out: %s", error)
        return photo, None


def prefetch(read: Callable[[Item], Value], items: Iterable[Item], threads: int = 2, depth: int = 4) -> Iterator[Value]:
    """`map(read, items)` in order, with up to `depth` results made in advance by `threads` threads."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Value]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class PixelCache:
    """Reads photographs, each from disk only once until `limit` bytes are held."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self.images: dict[Path, Image.Image] = {}

    def read(self, path: Path) -> Image.Image:
        """The photograph; do not change it."""
        image = self.images.get(path)
        if image is None:
            image = read_rgb(path)
            size = 4 * image.width * image.height
            if self.held + size <= self.limit:
                self.images[path] = image
                self.held += size
        return image
