"""Masks as pictures: one-bit PNG files, and one PNG of labels."""

from typing import IO

import numpy as np
from PIL import Image

from tinysam.runtime.outputs.palette import color
from tinysam.runtime.results import MaskRecord, Result

_LEVEL = 1
"""zlib level of PNG files: masks shrink to almost nothing at any level, higher ones only take longer."""


def write_mask(mask: MaskRecord, stream: IO[bytes]) -> None:
    """A one-bit PNG, white on the object."""
    Image.fromarray(mask.mask()).save(stream, "PNG", compress_level=_LEVEL)


def write_labels(result: Result, stream: IO[bytes]) -> None:
    """A PNG whose pixels hold the number of the last mask they belong to, from 1; 0 is background.

    Up to 255 masks it has 8 bits and a palette of the overlay's colours, above that 16 bits.
    """
    small = len(result.masks) < 256
    labels = np.zeros(result.image_size, np.uint8 if small else np.uint16)
    for index, mask in enumerate(result.masks):
        x0, y0, x1, y1 = mask.rle.box
        labels[y0:y1, x0:x1][mask.rle.decode_crop(mask.rle.box)] = index + 1
    picture = Image.fromarray(labels)
    if small:
        picture.putpalette([0, 0, 0, *(value for index in range(255) for value in color(index))])
    picture.save(stream, "PNG", compress_level=_LEVEL)
