"""Small holes and islands of a mask, found on its runs: no image-sized arrays, no image library.

Connected components are 8-connected for holes and islands alike, as in SAM's `remove_small_regions`.
"""

import numpy as np

from tinysam.runtime.masks.rle import Ints, Rle


def remove_small_regions(mask: Rle, min_area: float) -> tuple[Rle, bool]:
    """Fills holes and then removes islands of fewer than `min_area` pixels.

    If every island is small, the largest stays. Returns the mask and whether it changed.
    """
    filled = _complement(_without_small(_complement(mask), min_area, keep_largest=False))
    cleaned = _without_small(filled, min_area, keep_largest=True)
    return cleaned, not np.array_equal(cleaned.counts, mask.counts)


def components(mask: Rle) -> tuple[Ints, Ints]:
    """The 8-connected component of every column run of a mask, numbered from 0, and the components' areas in pixels."""
    column, top, bottom = mask.column_runs()
    stride = mask.size[0] + 2
    start, stop = column * stride + top, column * stride + bottom
    # Runs of the next column that a run touches, corners included: from the first that ends at or below its top
    # to the last that starts at or above its bottom.
    first = np.searchsorted(stop, start + stride, side="left")
    last = np.searchsorted(start, stop + stride, side="right")
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
    label, areas = components(mask)
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
