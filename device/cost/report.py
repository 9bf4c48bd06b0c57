"""The measured costs as a record and as tables."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tinysam.device.cost.measure import Operation
from tinysam.device.cost.plugin import CLASSES, Counts
from tinysam.export.pages import replace_section
from tinysam.runtime.atomic import write_atomically
from tinysam.runtime.engines.formats import FORMATS

HEADINGS = ("dot product", "other vector", "load/store", "branch", "other")
RATIOS = ("dot product share", "per GMAC", "of fp32")
ENGINE_NAMES = {name: form.title for name, form in FORMATS.items()}


class Kind(NamedTuple):
    """The operations of one kind."""

    number: int
    counts: Counts


@dataclass(frozen=True)
class Row:
    """One file on one processor."""

    model: str
    part: str
    """One of `tinysam.device.cost.models.PARTS`."""
    engine: str
    cpu: str
    precision: str
    version: str
    """Of the engine."""
    sha256: str
    """Of the file."""
    counts: Counts
    macs: int = 0
    """Multiply-accumulates of the graph; 0 if they were not counted."""
    operations: Mapping[str, Kind] = field(default_factory=dict)
    """By kind, costliest first; empty if the count was not attributed."""

    @property
    def key(self) -> tuple[str, ...]:
        """What the record has one row of."""
        return self.model, self.part, self.engine, self.cpu, self.precision

    @property
    def group(self) -> tuple[str, str, str, str]:
        """What the precisions have in common."""
        return self.model, self.part, self.engine, self.cpu

    def record(self) -> dict[str, Any]:
        """For json.dump."""
        kinds = {name: {"number": kind.number, **asdict(kind.counts)} for name, kind in self.operations.items()}
        return {**vars(self), "counts": asdict(self.counts), "total": self.counts.total, "operations": kinds}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Row:
        """The row that `record` was made of."""
        values = {name: value for name, value in record.items() if name != "total"}
        kinds = {
            name: Kind(kind["number"], Counts(**{part: kind[part] for part in CLASSES}))
            for name, kind in record["operations"].items()
        }
        return cls(**{**values, "counts": Counts(**record["counts"]), "operations": kinds})


def read_record(path: Path) -> list[Row]:
    """Rows of a record; none if it does not exist yet.

    Raises:
        ValueError: the file is something else.
    """
    if not path.exists():
        return []
    try:
        rows = [Row.from_record(row) for row in json.loads(path.read_bytes())]
        for row in rows:
            _check_types(row)
        return rows
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        found = " ".join(str(error).split())[:80]
        raise ValueError(
            f"{path}: no record of counts ({type(error).__name__}: {found}); "
            "expected what tinysam-arm-cost --out writes, such as docs/arm-cost.json"
        ) from error


def _check_types(row: Row) -> None:
    """TypeError for what JSON may hold in place of names and counts."""
    counts = (row.counts, *(kind.counts for kind in row.operations.values()))
    if not all(isinstance(name, str) for name in (*row.key, row.version)):
        raise TypeError("a name is not text")
    if not all(isinstance(value, int) for one in counts for value in astuple(one)):
        raise TypeError("a count is not a whole number")


def update_record(path: Path, rows: Iterable[Row]) -> None:
    """Replace rows of the same key in a record, keep the others, sort."""
    known = {row.key: row for row in (*read_record(path), *rows)}
    write_atomically(path, json.dumps([known[key].record() for key in sorted(known)], indent=1) + "\n")


def by_kind(operations: Iterable[Operation]) -> dict[str, Kind]:
    """Number and cost of the operations of each kind, costliest first."""
    found: dict[str, Kind] = defaultdict(lambda: Kind(0, Counts()))
    for operation in operations:
        number, counts = found[operation.kind]
        found[operation.kind] = Kind(number + 1, counts + operation.counts)
    return dict(sorted(found.items(), key=lambda item: -item[1].counts.total))


def table(rows: Sequence[Row]) -> str:
    """Markdown: millions of instructions by class, the dot products' share, the cost of 1 GMAC, the part of fp32's."""
    fp32 = {row.group: row.counts.total for row in rows if row.precision == "fp32"}
    lines = [
        f"| model | part | engine | processor | precision | total | {' | '.join(HEADINGS)} | {' | '.join(RATIOS)} |",
        f"| --- | --- | --- | --- | --- | ---: | {' | '.join(['---:'] * len(HEADINGS + RATIOS))} |",
    ]
    for row in sorted(rows, key=lambda row: (row.group, row.precision)):
        classes = " | ".join(_millions(getattr(row.counts, name)) for name in CLASSES)
        base = fp32.get(row.group)
        ratio = f"**{row.counts.total / base:.3f}**" if base and row.precision != "fp32" else ""
        dots = f"{row.counts.dot_product / row.counts.total:.0%}" if row.counts.dot_product else ""
        cost = f"{row.counts.total / row.macs * 1e3:,.0f}" if row.macs else ""
        engine = f"{ENGINE_NAMES[row.engine]} {row.version.split()[-1]}"
        cells = [row.model, row.part, engine, row.cpu, row.precision, _millions(row.counts.total)]
        cells += [classes, dots, cost, ratio]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def operations_table(row: Row) -> str:
    """Markdown: millions of instructions by kind of operation, with the part of the total that was attributed."""
    lines = [
        f"| operation | number | total | {' | '.join(HEADINGS)} |",
        f"| --- | ---: | ---: |{' ---: |' * len(HEADINGS)}",
    ]
    attributed = 0
    for kind, (number, counts) in row.operations.items():
        attributed += counts.total
        classes = " | ".join(_millions(getattr(counts, name)) for name in CLASSES)
        lines.append(f"| {kind} | {number} | {_millions(counts.total)} | {classes} |")
    share = attributed / row.counts.total
    title = f"### {row.model} {row.part} {row.precision}, {ENGINE_NAMES[row.engine]}, {row.cpu}"
    return f"{title} (sum of operations: {share:.1%} of the total)\n\n" + "\n".join(lines)


def write_page(page: Path, rows: Sequence[Row]) -> None:
    """Put the tables of a record into the sections `figures` and `operations` of a Markdown page."""
    replace_section(page, "figures", table(rows))
    replace_section(page, "operations", "\n\n".join(operations_table(row) for row in rows if row.operations))


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f}"
