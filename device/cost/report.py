"""The measured costs as a record and as tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tinysam.device.cost.measure import Operation
from tinysam.device.cost.plugin import CLASSES, Counts

HEADINGS = ("dot product", "other vector", "load/store", "branch", "other")
ENGINE_NAMES = {"onnx": "ONNX Runtime", "tflite": "LiteRT"}


@dataclass(frozen=True)
class Row:
    """One file on one processor."""

    model: str
    part: str
    engine: str
    cpu: str
    precision: str
    version: str
    """Of the engine."""
    sha256: str
    """Of the file."""
    counts: Counts
    operations: tuple[Operation, ...] = ()

    @property
    def group(self) -> tuple[str, str, str, str]:
        """What fp32 and INT8 have in common."""
        return self.model, self.part, self.engine, self.cpu

    def record(self) -> dict[str, Any]:
        """For json.dump; operations by kind."""
        row = asdict(self) | {"total": self.counts.total}
        kinds = by_kind(self.operations)
        row["operations"] = {kind: {"number": n, **asdict(counts)} for kind, (n, counts) in kinds.items()}
        return row


def by_kind(operations: Iterable[Operation]) -> dict[str, tuple[int, Counts]]:
    """Number and cost of the operations of each kind, costliest first."""
    found: dict[str, tuple[int, Counts]] = defaultdict(lambda: (0, Counts()))
    for operation in operations:
        number, counts = found[operation.kind]
        found[operation.kind] = number + 1, counts + operation.counts
    return dict(sorted(found.items(), key=lambda item: -item[1][1].total))


def table(rows: Sequence[Row]) -> str:
    """Markdown: millions of instructions by class, and the ratio of INT8 to fp32."""
    fp32 = {row.group: row.counts.total for row in rows if row.precision == "fp32"}
    lines = [
        f"| model | part | engine | processor | precision | total | {' | '.join(HEADINGS)} | INT8 / fp32 |",
        f"| --- | --- | --- | --- | --- | ---: | {' | '.join(['---:'] * len(HEADINGS))} | ---: |",
    ]
    for row in sorted(rows, key=lambda row: (row.group, row.precision)):
        classes = " | ".join(_millions(getattr(row.counts, name)) for name in CLASSES)
        base = fp32.get(row.group)
        ratio = f"**{row.counts.total / base:.3f}**" if row.precision == "int8" and base else ""
        engine = ENGINE_NAMES[row.engine]
        cells = [row.model, row.part, engine, row.cpu, row.precision, _millions(row.counts.total), classes, ratio]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def operations_table(row: Row) -> str:
    """Markdown: millions of instructions by kind of operation, with the part of the total that was attributed."""
    lines = [
        f"| operation | number | total | {' | '.join(HEADINGS)} |",
        f"| --- | ---: | ---: |{' ---: |' * len(HEADINGS)}",
    ]
    attributed = 0
    for kind, (number, counts) in by_kind(row.operations).items():
        attributed += counts.total
        classes = " | ".join(_millions(getattr(counts, name)) for name in CLASSES)
        lines.append(f"| {kind} | {number} | {_millions(counts.total)} | {classes} |")
    share = attributed / row.counts.total
    title = f"{row.model} {row.part} {row.precision}, {ENGINE_NAMES[row.engine]}, {row.cpu}"
    return f"{title} (sum of operations: {share:.1%} of the total)\n\n" + "\n".join(lines)


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f}"
