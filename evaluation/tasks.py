"""What can be measured: each task turns a photograph into a record, and records into figures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from PIL import Image

from tinysam.datasets.coco import Photo
from tinysam.evaluation.prompted import Protocol as Prompts
from tinysam.evaluation.prompted import evaluate
from tinysam.evaluation.report import band, group_means, table
from tinysam.runtime.segmenter import Segmenter

Item = TypeVar("Item")


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
        """Mean IoU per group: what a user gets, `_raw` before cleaning, `_best` of three masks, `_single` mask 0."""
        rows = [row for found in records for row in found]
        names = [f"{n}{suffix}" for n in self.prompts.names() for suffix in ("", "_raw", "_best", "_single")]
        columns = [name for name in names if rows and name in rows[0]]
        groups = group_means(rows, self.by, columns)
        return Figures({"mean_iou": groups}, table(groups, columns))
