"""The overlapping crops in which segment-everything looks at a photograph."""

import math
from typing import NamedTuple


class Crop(NamedTuple):
    """A part of the photograph."""

    box: tuple[int, int, int, int]
    """x0, y0, x1, y1."""
    layer: int
    """0 is the whole photograph."""


def crops(size: tuple[int, int], layers: int, overlap_ratio: float) -> list[Crop]:
    """The whole photograph of `size` (height, width), then 2**i x 2**i crops for each layer i, as SAM lays them out."""
    height, width = size
    found = [Crop((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size) * 2 / count)
        crop_width, crop_height = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        lefts = [(crop_width - overlap) * index for index in range(count)]
        tops = [(crop_height - overlap) * index for index in range(count)]
        found += [
            Crop((x, y, min(x + crop_width, width), min(y + crop_height, height)), layer)
            for x in lefts
            for y in tops
            if x < width and y < height
        ]
    return found
