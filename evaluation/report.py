"""Means per source, as json and as a table."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

ALL = "all"
BANDS = ((0.001, "< 0.1 %"), (0.01, "0.1-1 %"), (0.1, "1-10 %"), (math.inf, "> 10 %"))
"""Upper limits of a mask's share of its photograph, for means by size."""


def mean(values: Sequence[float]) -> float:
    """Mean; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def band(share: float) -> str:
    """Name of the size band of a mask that takes this share of its photograph."""
    return next(name for limit, name in BANDS if share < limit)


def group_means(rows: Iterable[dict[str, Any]], by: str, columns: Sequence[str]) -> dict[str, dict[str, float]]:
    """Means of `columns` for each value of `by`, and for all rows; every row weighs the same."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[ALL].append(row)
        groups[str(row[by])].append(row)
    return {
        name: {column: mean([r[column] for r in found if column in r]) for column in columns} | {"masks": len(found)}
        for name, found in sorted(groups.items(), key=lambda item: (item[0] != ALL, item[0]))
    }


def table(groups: dict[str, dict[str, float]], columns: Sequence[str]) -> str:
    """Groups as lines of text."""
    width = max([len(name) for name in groups] + [8])
    lines = [" ".join([" " * width, *(f"{c:>14}" for c in columns), f"{'masks':>7}"])]
    for name, values in groups.items():
        cells = [f"{values[c]:14.3f}" for c in columns]
        lines.append(" ".join([f"{name:{width}}", *cells, f"{values['masks']:7.0f}"]))
    return "\n".join(lines)
