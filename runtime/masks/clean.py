"""Removes small islands of a mask and fills its small holes, at low resolution.

1. Of the low-res mask's part that shows the photograph take the background's connected parts that do not reach the
   photograph's border: holes. Those smaller than a share of the mask's area are filled.
2. Of the foreground's connected parts remove those that are smaller than a share of that area; the largest stays.

Parts are 8-connected, as in SAM's `remove_small_regions`. Logits change their sign and keep their size, so that
upscaling draws no outline where the part was.
"""

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.manifest import Cleaning
from tinysam.runtime.masks.regions import components
from tinysam.runtime.masks.rle import Rle

Floats = NDArray[np.float32]

_LEAST_LOGIT = 1e-3
"""Size of a logit that changes sides although it is 0."""


def clean_mask(logits: Floats, cleaning: Cleaning, size: tuple[int, int]) -> Floats:
    """A low-res mask without small islands and holes.

    Args:
        logits: (side, side) or a part of it; not changed.
        cleaning: smallest shares of the mask's area that islands and holes must have to stay.
        size: (height, width) of the part that shows the photograph, `Frame.low_res_size`.

    Returns:
        The same array if nothing was cleaned, else a changed copy.
    """
    height, width = size
    mask = logits[:height, :width] > 0
    area = int(np.count_nonzero(mask))
    if not area or not (cleaning.islands or cleaning.holes):
        return logits
    holes = _small_parts(~mask, cleaning.holes * area, keep_border=True)
    islands = _small_parts(mask | holes, cleaning.islands * area, keep_border=False)
    if not (holes.any() or islands.any()):
        return logits
    cleaned = logits.copy()
    part = cleaned[:height, :width]
    strength = np.maximum(np.abs(part), _LEAST_LOGIT)
    part[holes] = strength[holes]
    part[islands] = -strength[islands]
    return cleaned


def clean_masks(logits: Floats, cleaning: Cleaning, size: tuple[int, int]) -> Floats:
    """(..., side, side) masks, each as `clean_mask`; the same array if nothing was cleaned."""
    if not (cleaning.islands or cleaning.holes):
        return logits
    flat = list(logits.reshape(-1, *logits.shape[-2:]))
    cleaned = [clean_mask(one, cleaning, size) for one in flat]
    if all(new is old for new, old in zip(cleaned, flat, strict=True)):
        return logits
    return np.stack(cleaned).reshape(logits.shape)


def _small_parts(mask: NDArray[np.bool_], min_area: float, keep_border: bool) -> NDArray[np.bool_]:
    """The connected parts with fewer pixels; not the largest, or with `keep_border` none that reaches the border."""
    small = np.zeros_like(mask)
    if min_area <= 0 or not mask.any():
        return small
    runs = Rle.encode(mask)
    label, areas = components(runs)
    column, top, bottom = runs.column_runs()
    stays = areas >= min_area
    if keep_border:
        height, width = mask.shape
        stays[label[(column == 0) | (column == width - 1) | (top == 0) | (bottom == height)]] = True
    else:
        stays[areas.argmax()] = True
    for run in np.flatnonzero(~stays[label]):
        small[top[run] : bottom[run], column[run]] = True
    return small
