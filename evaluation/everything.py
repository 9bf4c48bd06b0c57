"""Segment-everything against annotated masks: does it find them, and how well.

The annotations of no set are complete, so precision means little; recall and the IoU of the best match do.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from tinysam.datasets.coco import Mask, Photo
from tinysam.evaluation.report import ALL, group_means, mean, table
from tinysam.evaluation.tasks import Figures, labelled, spread
from tinysam.runtime.everything.generator import segment_everything
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.results import MaskRecord
from tinysam.runtime.segmenter import Segmenter

THRESHOLDS = np.arange(0.5, 1.0, 0.05)
"""IoU from which a mask counts as found; the average recall is over all of these, as in COCO."""
COLUMNS = ("best_iou", "recall_50", "recall_75", "average_recall")

Changes = tuple[tuple[str, float], ...]


def recalls(iou: float) -> dict[str, float]:
    """Scores of one mask whose best match has this IoU."""
    return {
        "best_iou": iou,
        "recall_50": float(iou >= 0.5),
        "recall_75": float(iou >= 0.75),
        "average_recall": float((iou >= THRESHOLDS - 1e-9).mean()),
    }


def best_ious(found: Sequence[MaskRecord], masks: Sequence[Mask]) -> list[float]:
    """For each annotated mask the IoU of the found mask that fits best; 0 if none was found."""
    if not found:
        return [0.0] * len(masks)
    mine = [{"size": list(record.rle.size), "counts": record.rle.to_coco().encode()} for record in found]
    overlaps = coco_mask.iou(mine, [mask.rle for mask in masks], [0] * len(masks))
    return [float(value) for value in np.asarray(overlaps).max(axis=0)]


@dataclass(frozen=True)
class EverythingTask:
    """Mean best IoU and recall of segment-everything."""

    changes: Changes = ()
    """Settings in place of those chosen for the model, by name."""
    max_masks: int = 0
    by: str = field(default="source", repr=False)
    """How rows are grouped, see `PromptedTask`."""

    def record(self, segmenter: Segmenter, photo: Photo, image: Image.Image) -> dict[str, Any]:
        """Rows of the annotated masks, the number of masks found, and the time it took."""
        start = time.perf_counter()
        settings = EverythingSettings.of_model(segmenter.manifest.everything, **dict(self.changes))
        found = segment_everything(segmenter, image, settings).masks
        seconds = time.perf_counter() - start
        masks = spread(photo.masks, self.max_masks)
        rows = labelled(photo, masks, [recalls(value) for value in best_ious(found, masks)])
        return {"rows": rows, "found": len(found), "seconds": seconds}

    def figures(self, records: Iterable[dict[str, Any]]) -> Figures:
        """Means per group."""
        kept = list(records)
        groups = group_means([row for record in kept for row in record["rows"]], self.by, COLUMNS)
        found, seconds = mean([r["found"] for r in kept]), mean([r["seconds"] for r in kept])
        summary = {"everything": groups, "masks_per_image": found, "seconds_per_image": seconds}
        text = f"{table(groups, COLUMNS)}\n{found:.1f} masks and {seconds:.2f} s per image"
        return Figures(summary, text if ALL in groups else "nothing evaluated")
