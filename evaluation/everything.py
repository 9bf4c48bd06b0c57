"""Segment-everything against annotated masks, or as annotations.

`EverythingTask`: does it find the annotated masks, and how well. The annotations of no set are complete, so precision
means little; recall and the IoU of the best match do. `AnnotateTask`: masks for photographs that have none, as a
COCO-format set to train on.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from tinysam.datasets.coco import Mask, Photo
from tinysam.evaluation.tasks import ALL, Figures, group_means, labelled, mean, spread, table
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


@dataclass(frozen=True)
class AnnotateTask:
    """A teacher's masks of everything."""

    changes: Changes = ()
    """Settings in place of those chosen for the model, by name."""

    def record(self, segmenter: Segmenter, photo: Photo, image: Image.Image) -> dict[str, Any]:
        """The photograph and its annotations, numbered when all are put together."""
        settings = EverythingSettings.of_model(segmenter.manifest.everything, **dict(self.changes))
        annotations = [
            {
                "image_id": photo.id,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": {"size": list(mask.rle.size), "counts": mask.rle.to_coco()},
                "bbox": list(mask.bbox),
                "area": mask.area,
                "predicted_iou": float(mask.predicted_iou),
                "stability_score": float(mask.stability_score),
                "point_coords": [list(map(float, point)) for point in mask.point_coords],
            }
            for mask in segment_everything(segmenter, image, settings).masks
        ]
        size = {"width": image.width, "height": image.height}
        return {
            "image": {"id": photo.id, "file_name": str(photo.path.resolve()), **size, "source": photo.source},
            "annotations": annotations,
        }

    def figures(self, records: Iterable[dict[str, Any]]) -> Figures:
        """The COCO-format set."""
        kept = list(records)
        annotations = [annotation for record in kept for annotation in record["annotations"]]
        numbered = [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)]
        categories = [{"id": 1, "name": "object"}]
        coco = {"images": [record["image"] for record in kept], "annotations": numbered, "categories": categories}
        return Figures({"masks": len(numbered)}, f"{len(numbered)} masks in {len(kept)} photographs", coco)
