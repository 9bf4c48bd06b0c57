"""Run-length encoding of masks as in COCO: column by column, background first."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_BLOCK_PIXELS = 1 << 20
"""Pixels that are looked at together: a large mask is never copied whole."""


@dataclass(frozen=True, eq=False)
class Rle:
    """One mask of a (height, width) image, small enough to keep hundreds of a large photograph."""

    size: tuple[int, int]
    """(height, width)."""
    counts: Ints
    """Lengths of alternating runs of background and foreground in column-major order; they sum to height * width."""

    @classmethod
    def encode(cls, mask: Bools) -> "Rle":
        """From a bool (height, width) mask."""
        height, width = mask.shape
        return cls.encode_crop(mask, (0, 0), (height, width))

    @classmethod
    def encode_crop(cls, crop: Bools, origin: tuple[int, int], size: tuple[int, int]) -> "Rle":
        """From the part of a mask whose top left corner is at `origin` = (x, y) of an image of `size`; else empty."""
        height, (x, y) = size[0], origin
        rows, columns = crop.shape
        block = max(1, _BLOCK_PIXELS // max(1, rows))
        edges = []
        for first in range(0, columns, block):
            part = crop[:, first : first + block]
            padded = np.zeros((part.shape[1], rows + 2), np.bool_)
            padded[:, 1:-1] = part.T
            column, row = np.divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), rows + 1)
            edges.append((x + first + column) * height + y + row)
        return cls.from_edges(np.concatenate(edges) if edges else np.empty(0, np.int64), size)

    @classmethod
    def from_edges(cls, edges: Ints, size: tuple[int, int]) -> "Rle":
        """From the sorted column-major positions where foreground starts, ends, starts, ..., each stretch not empty."""
        touching = np.flatnonzero(edges[1:-1:2] == edges[2::2])
        edges = np.delete(edges, np.concatenate([2 * touching + 1, 2 * touching + 2]))
        total = size[0] * size[1]
        bounds = np.concatenate([[0], edges, [] if len(edges) and edges[-1] == total else [total]]).astype(np.int64)
        return cls(size, np.diff(bounds))

    @classmethod
    def from_coco(cls, size: tuple[int, int], text: str) -> "Rle":
        """From COCO's compressed text.

        Raises:
            ValueError: the text is cut off, or its runs do not add up to the image.
        """
        digits = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
        last = (digits & 0x20) == 0
        if len(digits) and (not last[-1] or digits.min() < 0 or digits.max() > 63):
            raise ValueError("COCO run lengths: cut off or with a character that does not belong there")
        end = np.flatnonzero(last)
        start = np.concatenate([[0], end[:-1] + 1]) if len(end) else end
        place = np.arange(len(digits)) - np.repeat(start, end - start + 1)
        values = np.add.reduceat((digits & 0x1F) << (5 * place), start) if len(end) else end
        negative = (digits[end] & 0x10) != 0
        values = values - (negative.astype(np.int64) << (5 * (end - start + 1)))
        counts = values.copy()
        for offset in (1, 2):  # each run from the fourth on is stored as a difference to the one two before
            counts[offset::2] = np.cumsum(values[offset::2])
        if (counts < 0).any() or counts.sum() != size[0] * size[1]:
            raise ValueError(f"COCO run lengths add up to {counts.sum()}, the image has {size[0] * size[1]} pixels")
        return cls(size, counts)

    def to_coco(self) -> str:
        """COCO's compressed text: differences in base 32, five bits and a continuation bit to a character."""
        rest = self.counts.copy()
        rest[3:] -= self.counts[1:-2]
        characters = []
        more = np.ones(len(rest), np.bool_)
        while more.any():
            digit = rest & 0x1F
            rest >>= 5
            alive, more = more, more & (rest != np.where(digit & 0x10, -1, 0))
            characters.append(np.where(alive, digit + 48 + (more << 5), 0))
        table = np.array(characters, np.uint8).T
        return table[table > 0].tobytes().decode("ascii")

    def decode(self) -> Bools:
        """The bool (height, width) mask."""
        return self.decode_crop((0, 0, self.size[1], self.size[0]))

    def decode_crop(self, box: tuple[int, int, int, int]) -> Bools:
        """The part x0 <= x < x1, y0 <= y < y1 of the mask, box = (x0, y0, x1, y1)."""
        x0, y0, x1, y1 = box
        height, bounds = self.size[0], self._ends
        crop = np.empty((y1 - y0, x1 - x0), np.bool_)
        step = max(1, _BLOCK_PIXELS // max(1, height))
        for first in range(x0, x1, step):
            last = min(first + step, x1)
            # The run that the block begins in, and the one that it ends in.
            begin, end = np.searchsorted(bounds, (first * height, last * height - 1), "right")
            ends = np.minimum(bounds[begin : end + 1], last * height)
            value = np.arange(begin, end + 1) % 2 == 1
            columns = np.repeat(value, np.diff(ends, prepend=first * height)).reshape(last - first, height)
            crop[:, first - x0 : last - x0] = columns[:, y0:y1].T
        return crop

    @cached_property
    def _ends(self) -> Ints:
        """Where each run ends."""
        return np.cumsum(self.counts)

    @cached_property
    def area(self) -> int:
        """Pixels of foreground."""
        return int(self.counts[1::2].sum())

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1), the last column and row not included; all 0 for an empty mask."""
        if not self.area:
            return 0, 0, 0, 0
        column, top, bottom = self.column_runs()
        return int(column[0]), int(top.min()), int(column[-1]) + 1, int(bottom.max())

    def column_runs(self) -> tuple[Ints, Ints, Ints]:
        """Foreground as vertical runs, sorted: column, first row, one past the last row."""
        height = self.size[0]
        bounds = np.cumsum(self.counts)
        start, stop = bounds[0::2], bounds[1::2]
        start = start[: len(stop)]
        used = stop > start
        start, stop = start[used], stop[used]
        columns = (stop - 1) // height - start // height + 1
        column = np.repeat(start // height, columns) + _count_up(columns)
        top = np.maximum(np.repeat(start, columns), column * height) - column * height
        bottom = np.minimum(np.repeat(stop, columns), (column + 1) * height) - column * height
        return column, top, bottom


def _count_up(lengths: Ints) -> Ints:
    """0 to length - 1 for each length, one after the other."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
