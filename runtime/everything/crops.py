"""The overlapping crops in which segment-everything looks at a photograph."""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

_LOOK_PX = 256
"""Long side at which the contrast of a crop is measured, about what the encoder sees."""
_BLOCK_PX = 8
"""Noise and contrast are separated by the means of blocks of 8 x 8 pixels, an eighth as noisy as the pixels themselves.
Of a thousand such means the lowest and the highest are seldom over 8 of their standard deviations apart: one of the
pixels."""
_FLAT_RANGE = 3.0
"""Levels of 255 between the darkest and the brightest block that count as flat without any noise: JPEG makes them."""
_FLAT_NOISE = 16.0
"""Largest standard deviation, in levels, of a flat crop's pixels; a pattern of strong contrast is above it."""


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


def is_flat(picture: Image.Image, region: Crop) -> bool:
    """Whether an RGB picture is one colour there, but for noise: a covered lens, a night without light, a blank page.

    The models answer every click with masks, on a picture without contrast as well, and rate them as usual.
    """
    x0, y0, x1, y1 = region.box
    shrink = min(1.0, _LOOK_PX / max(x1 - x0, y1 - y0))
    size = (max(1, round((x1 - x0) * shrink)), max(1, round((y1 - y0) * shrink)))
    small = picture.resize(size, Image.Resampling.BOX, box=region.box)
    noise = float(np.asarray(small).std(axis=(0, 1)).max())
    blocks = small.resize((max(1, size[0] // _BLOCK_PX), max(1, size[1] // _BLOCK_PX)), Image.Resampling.BOX)
    contrast = float(np.ptp(np.asarray(blocks, np.float32), axis=(0, 1)).max())
    return noise <= _FLAT_NOISE and contrast <= max(_FLAT_RANGE, noise)
