"""What can be measured: each task turns a photograph into a record, and records into figures.

Figures are means for each source or size of masks, as json and as a table.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from PIL import Image

from tinysam.datasets.coco import Photo
from tinysam.evaluation.prompted import Protocol as Prompts
from tinysam.evaluation.prompted import evaluate
from tinysam.runtime.segmenter import Segmenter

Item = TypeVar("Item")

ALL = "all"
BANDS = ((0.001, "< 0.1 %"), (0.01, "0.1-1 %"), (0.1, "1-10 %"), (math.inf, "> 10 %"))
"""Upper limits of a mask's share of its photograph, for means by size."""


@dataclass(frozen=True)
class Figures:
    """The outcome of a run."""

    summary: dict[str, Any]
    """For json."""
    text: str
    """For people."""
    coco: dict[str, Any] | None = None
    """Annotations to write as a COCO-format file."""


class Task(Protocol):
    """One measurement. Its fields, together with the model, decide the records."""

    def record(self, segmenter: Segmenter, photo: Photo, image: Image.Image) -> Any:
        """What is kept of one photograph, as json takes it."""
        ...

    def figures(self, records: Iterable[Any]) -> Figures:
        """What all records say."""
        ...


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, evenly spaced in the list; all if `most` is 0."""
    if not most or len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def labelled(photo: Photo, masks: Sequence[Any], scores: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """Scores of masks, with what they can be grouped by."""
    pixels = photo.width * photo.height
    return [
        {"id": mask.id, "source": photo.source, "size": band(mask.area / pixels), **values}
        for mask, values in zip(masks, scores, strict=True)
    ]


@dataclass(frozen=True)
class PromptedTask:
    """Mean IoU of masks from boxes and clicks."""

    prompts: Prompts = field(default_factory=Prompts)
    max_masks: int = 0
    """Of a photograph, evenly spread over its list; 0 for all."""
    by: str = field(default="source", repr=False)
    """How rows are grouped; not part of what was measured, so that a finished run can be grouped anew."""

    def record(self, segmenter: Segmenter, photo: Photo, image: Image.Image) -> list[dict[str, Any]]:
        """A row per mask."""
        masks = spread(photo.masks, self.max_masks)
        return labelled(photo, masks, evaluate(segmenter, image, masks, self.prompts))

    def figures(self, records: Iterable[list[dict[str, Any]]]) -> Figures:
        """Mean IoU per group: what a user gets, and of one look at the whole photograph what `scores` lists."""
        rows = [row for found in records for row in found]
        names = [f"{n}{suffix}" for n in self.prompts.names() for suffix in ("", "_whole", "_raw", "_best", "_single")]
        columns = [name for name in names if rows and name in rows[0]]
        groups = group_means(rows, self.by, columns)
        return Figures({"mean_iou": groups}, table(groups, columns))


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
