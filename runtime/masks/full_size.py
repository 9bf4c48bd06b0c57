"""From a piece of a low-res mask to run lengths at the photograph's size, computed inside the object's box only."""

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.masks.rle import Rle
from tinysam.runtime.upscale import Upscaler


def full_size_rle(
    logits: NDArray[np.float32],
    upscaler: Upscaler,
    size: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
    offset: tuple[int, int] = (0, 0),
) -> Rle:
    """The mask of one object.

    Args:
        logits: (h, w) part of the low-res mask that starts at `origin` = (row, column); beyond it nothing is above 0.
        upscaler: of the crop of the photograph that the low-res mask shows.
        size: (height, width) of the photograph.
        origin: see `logits`.
        offset: (x, y) of the crop in the photograph.
    """
    (top, left), (height, width) = origin, logits.shape
    piece = Upscaler(upscaler.rows[:, top : top + height], upscaler.columns[:, left : left + width])
    box = piece.extent(logits)
    if box is None:
        return Rle(size, np.array([size[0] * size[1]]))
    pixels = piece.crop(box).masks(logits)
    return Rle.encode_crop(pixels, (offset[0] + box[0], offset[1] + box[1]), size)
