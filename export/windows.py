"""A map cut into attention windows, and put together again.

TinyViT pads a map that windows do not divide with zeros right and below, and the padded cells take part in the
attention. They are all the same vector, whatever the photograph shows, so one can stand for all of them: equal keys
with the biases b_1 to b_n weigh as much as one key with the bias log(exp(b_1) + ... + exp(b_n)). What padded cells
themselves would get is cropped anyway. So windows at the border are cut to the cells they have, and get one cell of
zeros.

Of a map of 64 x 64 cells in windows of 14 that spares a quarter of the scores and a sixth of the linear layers' rows.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise, product

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Span:
    """Neighbouring windows along one axis of a map, equally long."""

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        """The first cell behind them."""
        return self.start + self.count * self.length


def spans(side: int, window: int) -> list[Span]:
    """The whole windows along an axis, and the one that the map's border cuts."""
    whole = side // window
    found = [Span(0, whole, window), Span(whole * window, 1, side % window)]
    return [span for span in found if span.count and span.length]


@dataclass(frozen=True)
class Region:
    """Windows of one size."""

    down: Span
    across: Span
    window: int
    """Cells of the side of a window that nothing cuts."""

    @property
    def padded(self) -> bool:
        """Whether a cell of zeros stands for what the border cuts off."""
        return (self.down.length, self.across.length) != (self.window, self.window)

    @property
    def windows(self) -> int:
        """How many there are."""
        return self.down.count * self.across.count

    @property
    def cells(self) -> int:
        """Cells of each, with the one that stands for the padding."""
        return self.down.length * self.across.length + self.padded

    def cut(self, rows: Tensor, side: int) -> Tensor:
        """(side * side, C) -> (windows * cells, C). All cuts are of two axes, so that no converter has to guess."""
        c, down, across = rows.shape[1], self.down, self.across
        x = rows.reshape(side, side * c)
        if self.windows * down.length * across.length < side * side:
            x = x[down.start : down.stop, across.start * c : across.stop * c]
        x = x.reshape(down.count, down.length, across.count, across.length * c).transpose(1, 2)
        if self.padded:
            x = F.pad(x.reshape(self.windows, -1), (0, c))
        return x.reshape(self.windows * self.cells, c)

    def join(self, rows: Tensor) -> Tensor:
        """(windows * cells, C) -> (height, width * C) of the part of the map that the windows cover."""
        c, down, across = rows.shape[1], self.down, self.across
        if self.padded:
            rows = rows.reshape(self.windows, -1)[:, :-c]
        x = rows.reshape(down.count, across.count, down.length, across.length * c).transpose(1, 2)
        return x.reshape(down.count * down.length, across.count * across.length * c)

    def bias(self, full: Tensor) -> Tensor:
        """The attention bias of these windows.

        Args:
            full: (heads, window ** 2, window ** 2) bias of every key for every query of a whole window.

        Returns:
            (1, heads, cells, cells).
        """
        inside = torch.zeros(self.window, self.window, dtype=torch.bool)
        inside[: self.down.length, : self.across.length] = True
        real = inside.flatten()
        bias = full[:, real][:, :, real]
        if self.padded:
            others = full[:, real][:, :, ~real].logsumexp(2, keepdim=True)
            bias = F.pad(torch.cat([bias, others], 2), (0, 0, 0, 1))
        return bias[None]


def regions(side: int, window: int) -> list[Region]:
    """What a map of `side` cells a side falls into, row by row; one region if windows divide it."""
    parts = spans(side, window)
    return [Region(down, across, window) for down, across in product(parts, parts)]


def together(tensors: list[Tensor], axis: int = 0) -> Tensor:
    """Tensors one behind the other; a single one stays as it is, without an operation."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, axis)


def cut(rows: Tensor, parts: list[Region], side: int) -> Tensor:
    """(side * side, C) -> (cells of all windows, C), region after region."""
    return together([part.cut(rows, side) for part in parts])


def split(rows: Tensor, parts: list[Region]) -> list[Tensor]:
    """(cells of all windows, C) -> those of each region."""
    if len(parts) == 1:
        return [rows]
    stops = list(accumulate(part.windows * part.cells for part in parts))
    return [rows[start:stop] for start, stop in pairwise([0, *stops])]


def join(rows: Tensor, parts: list[Region], side: int) -> Tensor:
    """(cells of all windows, C) -> (side * side, C)."""
    c = rows.shape[1]
    found = [part.join(some) for part, some in zip(parts, split(rows, parts), strict=True)]
    across = len({part.across for part in parts})
    bands = [together(found[i : i + across], axis=1) for i in range(0, len(found), across)]
    return together(bands).reshape(side * side, c)
