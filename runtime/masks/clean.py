"""Removes small islands of a mask and fills its small holes; no image-sized arrays, no image library.

`clean_mask` does it at low resolution, by shares of the mask's area:

1. Of the low-res mask's part that shows the photograph take the background's connected parts that do not reach the
   photograph's border: holes. Those smaller than a share of the mask's area are filled.
2. Of the foreground's connected parts remove those that are smaller than a share of that area; the largest stays.

Logits change their sign and keep their size, so that upscaling draws no outline where the part was. Parts are
4-connected, holes and islands alike: between two cells that touch at a corner only, upscaling draws a line of either
sign, so that what hangs together by corners alone may come apart.

`remove_small_regions` does it on the runs of a mask at the photograph's size, by a number of pixels. Connected parts
are 8-connected for holes and islands alike, as in SAM's function of that name.
"""

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.manifest import Cleaning
from tinysam.runtime.masks.rle import Ints, Rle

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
    """The 4-connected parts with fewer pixels; not the largest, or with `keep_border` none that reaches the border."""
    small = np.zeros_like(mask)
    if min_area <= 0 or not mask.any():
        return small
    runs = Rle.encode(mask)
    label, areas = components(runs, corners=False)
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


def remove_small_regions(mask: Rle, min_area: float) -> tuple[Rle, bool]:
    """Fills holes and then removes islands of fewer than `min_area` pixels.

    If every island is small, the largest stays. Returns the mask and whether it changed.
    """
    filled = _complement(_without_small(_complement(mask), min_area, keep_largest=False))
    cleaned = _without_small(filled, min_area, keep_largest=True)
    return cleaned, not np.array_equal(cleaned.counts, mask.counts)


def components(mask: Rle, corners: bool) -> tuple[Ints, Ints]:
    """The component of every column run of a mask, numbered from 0, and the components' areas in pixels.

    With `corners` pixels that touch at a corner only are connected too: 8-connected instead of 4-connected.
    """
    column, top, bottom = mask.column_runs()
    stride = mask.size[0] + 2
    start, stop = column * stride + top, column * stride + bottom
    # Runs of the next column that a run touches: from the first that ends below its top, or with corners at it, to the
    # last that starts above its bottom, or at it.
    first = np.searchsorted(stop, start + stride, side="left" if corners else "right")
    last = np.searchsorted(start, stop + stride, side="right" if corners else "left")
    touching = np.maximum(last - first, 0)
    left: Ints = np.repeat(np.arange(len(column)), touching)
    right = np.asarray(
        np.repeat(first - np.cumsum(touching) + touching, touching) + np.arange(touching.sum()), np.int64
    )
    parent = _union(len(column), left, right)
    _, label = np.unique(parent, return_inverse=True)
    return label, np.bincount(label, weights=bottom - top).astype(np.int64)


def _union(count: int, left: Ints, right: Ints) -> Ints:
    """Smallest index of each element's set after joining left[i] with right[i]."""
    parent: Ints = np.arange(count)
    while True:
        lower = np.minimum(parent[left], parent[right])
        np.minimum.at(parent, parent[left], lower)
        np.minimum.at(parent, parent[right], lower)
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
        if np.array_equal(parent[left], parent[right]):
            return parent


def _without_small(mask: Rle, min_area: float, keep_largest: bool) -> Rle:
    label, areas = components(mask, corners=True)
    keep = areas >= min_area
    if keep_largest and len(areas) and not keep.any():
        keep[areas.argmax()] = True
    if keep.all():
        return mask
    column, top, bottom = (part[keep[label]] for part in mask.column_runs())
    height = mask.size[0]
    edges = np.stack([column * height + top, column * height + bottom], axis=1).ravel()
    return Rle.from_edges(edges, mask.size)


def _complement(mask: Rle) -> Rle:
    counts = mask.counts[1:] if mask.counts[0] == 0 else np.concatenate([[0], mask.counts])
    return Rle(mask.size, counts)
