"""Masks for photographs that have none: segment-everything of a model, as a COCO-format set to train on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tinysam.datasets.coco import Photo
from tinysam.evaluation.everything import Changes
from tinysam.evaluation.tasks import Figures
from tinysam.runtime.everything.generator import segment_everything
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.segmenter import Segmenter


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
