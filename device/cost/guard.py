"""Fresh counts against the record: which stage of which model costs more instructions than it did, or is not there.

Counts repeat within 0.05 %, so a growth of 1 % is a change of the graph or of the engine, not of the day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinysam.device.cost.report import ENGINE_NAMES, Row

LIMIT = 0.01
"""Growth, as a part of the recorded count, that is reported."""


@dataclass(frozen=True)
class Growth:
    """A stage that costs more than the record says."""

    before: Row
    after: Row

    def __str__(self) -> str:
        old, new = self.before.counts.total, self.after.counts.total
        text = f"{_stage(self.after)}: {old / 1e6:,.1f} -> {new / 1e6:,.1f} million instructions ({_percent(old, new)})"
        if self.before.version != self.after.version:
            text += f"; the record is of {self.before.version}, this is {self.after.version}"
        kinds = [f"{kind} {_percent(*pair)}" for kind, pair in self.operations().items()]
        return text + (f"; by operation: {', '.join(kinds)}" if kinds else "")

    def operations(self) -> Mapping[str, tuple[int, int]]:
        """Kinds of operation that account for it, before and after, the largest growth first; needs --ops in both."""
        if not self.before.operations or not self.after.operations:
            return {}
        names = {*self.before.operations, *self.after.operations}
        pairs = {name: (_total(self.before, name), _total(self.after, name)) for name in names}
        least = LIMIT / 10 * self.before.counts.total
        grown = [(name, pair) for name, pair in pairs.items() if pair[1] - pair[0] > least]
        return dict(sorted(grown, key=lambda item: item[1][0] - item[1][1]))


@dataclass(frozen=True)
class Unknown:
    """A stage that the record lacks, so that nothing can be said of it."""

    after: Row

    def __str__(self) -> str:
        return (
            f"{_stage(self.after)}: not in the record, so not compared; --out adds it, --part and others leave it out"
        )


def compare(record: Sequence[Row], fresh: Sequence[Row]) -> list[Growth | Unknown]:
    """The stages that grew by more than `LIMIT` or are not in the record, in the order of `fresh`.

    Raises:
        ValueError: nothing was counted, so that nothing was compared.
    """
    if not fresh:
        raise ValueError("nothing was counted: the model has no such files")
    known = {row.key: row for row in record}
    found: list[Growth | Unknown] = []
    for row in fresh:
        before = known.get(row.key)
        if before is None:
            found.append(Unknown(row))
        elif row.counts.total > (1 + LIMIT) * before.counts.total:
            found.append(Growth(before, row))
    return found


def _stage(row: Row) -> str:
    return f"{row.model} {row.part} {row.precision}, {ENGINE_NAMES[row.engine]}, {row.cpu}"


def _total(row: Row, kind: str) -> int:
    return row.operations[kind].counts.total if kind in row.operations else 0


def _percent(old: int, new: int) -> str:
    return f"{new / old - 1:+.1%}" if old else "new"
