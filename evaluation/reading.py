"""Photographs decoded ahead of their use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from tinysam.evaluation.coco import Photo

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
    """The photograph with its decoded picture, mode RGB, in the frame of its annotations; None if it cannot be read.

    COCO's annotations count pixels as stored, so an EXIF orientation is not applied.
    """
    try:
        with Image.open(photo.path) as image:
            return photo, image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return photo, None
