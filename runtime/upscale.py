"""Bilinear upscaling of low-res mask logits to the photograph's size, without the intermediate images.

SAM resizes a mask twice: bilinear to the model's square input, crop the padding, bilinear to the photograph. Both steps
are linear and act on rows and columns separately, so together they are `rows @ low_res @ columns.T` with two banded
matrices. A pixel is a weighted mean of a few low-res pixels; where these agree in sign so does the pixel, and whole
tiles of a mask are filled without computing them. `full_size_rle` computes the inside of an object's box only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.masks.rle import Rle

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

_TILES_PER_SIDE = 48
_STRIP_BYTES = 8 << 20
_DIRECT_MACS = 1 << 25
"""Up to so many multiplications a mask is computed whole: looking for tiles to fill takes as long."""


def bilinear_matrix(size: int, new_size: int) -> Floats:
    """(new_size, size) weights of bilinear interpolation with half-pixel centres, as torch's `align_corners=False`."""
    return interpolation_matrix((np.arange(new_size) + 0.5) * (size / new_size) - 0.5, size)


def interpolation_matrix(source: NDArray[np.floating[Any]], size: int) -> Floats:
    """(n, size) weights of linear interpolation at n places among `size` values; beyond the ends these are repeated."""
    source = np.clip(source, 0, size - 1)
    low = source.astype(np.intp)
    high = np.minimum(low + 1, size - 1)
    weight = source - low
    matrix = np.zeros((len(source), size), np.float32)
    index = np.arange(len(source))
    matrix[index, low] = 1 - weight
    matrix[index, high] += weight.astype(np.float32)
    return matrix


@dataclass(frozen=True)
class Upscaler:
    """Row and column weights from a low-res mask to a photograph."""

    rows: Floats
    """(height, low-res side), every row sums to 1 and is non-zero in a few neighbouring places."""
    columns: Floats
    """(width, low-res side), likewise."""

    @classmethod
    def through_model(
        cls, side: int, image_size: int, input_size: tuple[int, int], original_size: tuple[int, int]
    ) -> "Upscaler":
        """Low-res `side` -> `image_size`, cropped to `input_size` (height, width), -> `original_size`."""
        up = bilinear_matrix(side, image_size)
        rows, columns = (
            bilinear_matrix(inner, outer) @ up[:inner] for inner, outer in zip(input_size, original_size, strict=True)
        )
        return cls(rows, columns)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the result."""
        return len(self.rows), len(self.columns)

    def logits(self, low_res: Floats) -> Floats:
        """(..., side, side) -> (..., height, width), float32."""
        height, width = self.size
        out = np.empty((*low_res.shape[:-2], height, width), np.float32)
        step = max(1, _STRIP_BYTES // (4 * width))
        for start in range(0, height, step):
            band = _band(self.rows[start : start + step])
            strip = self.rows[start : start + step, band] @ low_res[..., band, :]
            np.matmul(strip, self.columns.T, out=out[..., start : start + step, :])
        return out

    def masks(self, low_res: Floats, threshold: float = 0.0) -> Bools:
        """(..., side, side) -> (..., height, width), True where the upscaled logit is above `threshold`."""
        out = np.zeros((*low_res.shape[:-2], *self.size), np.bool_)
        for index in np.ndindex(low_res.shape[:-2]):
            self._fill(out[index], low_res[index], threshold)
        return out

    def crop(self, box: tuple[int, int, int, int]) -> "Upscaler":
        """The same for the part x0 <= x < x1, y0 <= y < y1 of the photograph, box = (x0, y0, x1, y1)."""
        x0, y0, x1, y1 = box
        return Upscaler(self.rows[y0:y1], self.columns[x0:x1])

    def extent(self, low_res: Floats, threshold: float = 0.0) -> tuple[int, int, int, int] | None:
        """A box (x0, y0, x1, y1) of the photograph that holds the whole mask; None if the mask is empty."""
        above = low_res > threshold
        y_range = _reach(self.rows, above.any(axis=1))
        x_range = _reach(self.columns, above.any(axis=0))
        if y_range is None or x_range is None:
            return None
        return x_range[0], y_range[0], x_range[1], y_range[1]

    def _fill(self, out: Bools, low_res: Floats, threshold: float) -> None:
        if out.size * low_res.shape[1] <= _DIRECT_MACS:
            np.greater(self.rows @ low_res @ self.columns.T, threshold, out=out)
            return
        row_step, column_step = (max(8, -(-length // _TILES_PER_SIDE)) for length in self.size)
        spans = [_band(self.columns[x : x + column_step]) for x in range(0, self.size[1], column_step)]
        edges = np.array([(span.start, span.stop) for span in spans])
        for y in range(0, self.size[0], row_step):
            rows = self.rows[y : y + row_step]
            band = _band(rows)
            strip = low_res[band]
            highest = _span_reduce(np.maximum, strip.max(axis=0), edges)
            lowest = _span_reduce(np.minimum, strip.min(axis=0), edges)
            target = out[y : y + row_step]
            # Rounding may move a weighted mean of equal values a little: leave a margin around the threshold.
            margin = 1e-5 * (1 + np.maximum(np.abs(highest), np.abs(lowest)))
            for tile in np.flatnonzero(lowest > threshold + margin):
                target[:, tile * column_step : (tile + 1) * column_step] = True
            mixed = (highest > threshold - margin) & ~(lowest > threshold + margin)
            for first, last in _runs(mixed):
                span = slice(spans[first].start, spans[last].stop)
                x = slice(first * column_step, (last + 1) * column_step)
                target[:, x] = (rows[:, band] @ strip[:, span]) @ self.columns[x, span].T > threshold


def full_size_rle(
    logits: Floats,
    upscaler: Upscaler,
    size: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
    offset: tuple[int, int] = (0, 0),
) -> Rle:
    """The mask of one object as run lengths at the photograph's size.

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


def _band(matrix: Floats) -> slice:
    """The columns in which some row is not zero."""
    used = np.flatnonzero(matrix.any(axis=0))
    return slice(int(used[0]), int(used[-1]) + 1)


def _reach(matrix: Floats, used: Bools) -> tuple[int, int] | None:
    """First and one past the last row that draws on a used column."""
    hit = np.flatnonzero((matrix[:, used] > 0).any(axis=1))
    return (int(hit[0]), int(hit[-1]) + 1) if len(hit) else None


def _span_reduce(ufunc: np.ufunc, values: Floats, edges: NDArray[np.intp]) -> Floats:
    """`ufunc` over values[start:stop] for every row (start, stop) of `edges`."""
    padded = np.append(values, values[-1:])
    reduced: Floats = ufunc.reduceat(padded, edges.ravel())[::2]
    return reduced


def _runs(flags: Bools) -> list[tuple[int, int]]:
    """First and last index of every stretch of True."""
    steps = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(stop) - 1) for start, stop in steps.reshape(-1, 2)]
