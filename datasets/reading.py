"""Photographs decoded ahead of their use."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from tinysam.datasets.coco import UNREADABLE, Photo

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Value = TypeVar("Value")


def ahead(read: Callable[[Item], Value], items: Iterable[Item], threads: int = 2, depth: int = 4) -> Iterator[Value]:
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


def read_photo(photo: Photo) -> tuple[Photo, Image.Image | None]:
    """The photograph with its decoded picture, mode RGB, in the frame of its annotations.

    None, and a line in the log, if it cannot be read or has not the size its annotations say. COCO's annotations count
    pixels as stored, so an EXIF orientation is not applied.
    """
    try:
        with Image.open(photo.path) as image:
            picture = image.convert("RGB")
    except UNREADABLE as error:
        log.warning("%s: cannot be read, left out (%s)", photo.path, error)
        return photo, None
    if picture.size != (photo.width, photo.height):
        sizes = (*picture.size, photo.width, photo.height)
        log.warning("%s: left out, it has %d x %d pixels, its annotations say %d x %d", photo.path, *sizes)
        return photo, None
    return photo, picture
