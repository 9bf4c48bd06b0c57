"""COCO average precision of masks from a detector's boxes: TinySAM's zero-shot protocol (arXiv:2312.13789).

The boxes come from any detector, in COCO's results format. Each becomes a box prompt; the mask gets the box' score.
Photographs without annotations count too: what is found in them is wrong.
"""

import contextlib
import io
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tinysam.datasets.coco import DataError, Mask, Photo, read_json, try_mask
from tinysam.datasets.coco_files import Pictures, annotation_file, size_of
from tinysam.evaluation.tasks import Figures
from tinysam.runtime.masks.rle import Rle
from tinysam.runtime.segmenter import Segmenter

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
"""COCO's first six figures."""
Detection = dict[str, Any]


def read_detections(path: Path) -> dict[int, list[Detection]]:
    """Detections by image.

    Raises:
        DataError: The file is missing, no JSON, or not a list of boxes with scores.
    """
    try:
        content = json.loads(path.read_text())
        found: dict[int, list[Detection]] = defaultdict(list)
        for entry in content:
            x, y, w, h = (float(v) for v in entry["bbox"])
            detection = {"category_id": int(entry["category_id"]), "score": float(entry["score"]), "bbox": [x, y, w, h]}
            found[int(entry["image_id"])].append(detection)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected COCO detections") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not COCO detections ({error!r}); expected a list of image_id, category_id, bbox, score"
        ) from error
    return dict(found)


@lru_cache(maxsize=2)
def detections_of(path: Path) -> dict[int, list[Detection]]:
    """`read_detections`, once per process."""
    return read_detections(path)


def clipped(detection: Detection, width: int, height: int) -> tuple[float, float, float, float] | None:
    """x0, y0, x1, y1 of a detection inside the photograph; None if nothing is left of it."""
    x, y, w, h = detection["bbox"]
    x0, y0, x1, y1 = max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


@dataclass(frozen=True)
class DetectionTask:
    """Average precision of masks from given boxes."""

    data: Path
    """Folder with the annotations."""
    boxes: Path
    """The detections."""
    single: bool = False
    """Whether to use the single-mask output rather than the best of three by predicted IoU."""
    batch: int = 16
    """Boxes decoded at once."""

    def detections(self, photo: Photo) -> list[Detection]:
        """The detections of one photograph."""
        return detections_of(self.boxes).get(photo.id, [])

    def record(self, segmenter: Segmenter, photo: Photo, image: Image.Image) -> dict[str, Any]:
        """The photograph's number and COCO results: one mask per box."""
        return {"image_id": photo.id, "results": self.results(segmenter, photo, image)}

    def results(self, segmenter: Segmenter, photo: Photo, image: Image.Image) -> list[dict[str, Any]]:
        """COCO results of one photograph."""
        boxes = [(d, clipped(d, image.width, image.height)) for d in self.detections(photo)]
        usable = [(d, box) for d, box in boxes if box is not None]
        if not usable:
            return []
        segmenter.set_image(image)
        results = []
        for start in range(0, len(usable), self.batch):
            part = usable[start : start + self.batch]
            answer = segmenter.predict_batch(
                boxes=np.array([box for _, box in part]), multimask_output=False if self.single else None
            )
            for (detection, _), masks in zip(part, answer.masks, strict=True):
                mask = {"size": [image.height, image.width], "counts": Rle.encode(masks[0]).to_coco()}
                kept = {"category_id": detection["category_id"], "score": detection["score"]}
                results.append({"image_id": photo.id, "segmentation": mask, **kept})
        return results

    def figures(self, records: Iterable[dict[str, Any]]) -> Figures:
        """COCO's average precision over the photographs that were looked at, also those without a detection."""
        kept = list(records)
        # Copies, because loadRes adds fields to what it is given.
        results = [dict(result) for record in kept for result in record["results"]]
        if not results:
            raise DataError(f"{self.boxes}: no detection for any photograph of {self.data}")
        with contextlib.redirect_stdout(io.StringIO()):
            truth = truth_of(annotation_file(self.data))
            scores = COCOeval(truth, truth.loadRes(results), "segm")
            scores.params.imgIds = sorted(record["image_id"] for record in kept)
            scores.evaluate()
            scores.accumulate()
            scores.summarize()
        values = {name: float(value) for name, value in zip(NAMES, scores.stats[:6], strict=True)}
        text = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        return Figures({"average_precision": values, "detections": len(results)}, text)


def truth_of(path: Path) -> COCO:
    """The annotations that have a usable mask, and crowd regions, in which COCO ignores detections.

    Missing areas are filled in, and numbers start at 1: pycocotools takes a match with annotation 0 for none.

    Raises:
        DataError: The file is not COCO's, or has no categories.
    """
    content = read_json(path)
    kept: list[dict[str, Any]] = []
    try:
        pictures = Pictures(path, content)
        sizes = {image["id"]: size_of(image, pictures) for image in content["images"]}
        for annotation in content["annotations"]:
            mask = try_mask({**annotation, "iscrowd": 0}, *sizes[annotation["image_id"]])
            if isinstance(mask, Mask):
                kept.append({"iscrowd": 0, "area": mask.area, **annotation, "segmentation": mask.rle})
        truth = COCO()
        truth.dataset = {
            "images": content["images"],
            "categories": content["categories"],
            "annotations": [{**annotation, "id": number} for number, annotation in enumerate(kept, start=1)],
        }
        truth.createIndex()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not COCO annotations with categories ({error!r})") from error
    return truth
