"""Masks as COCO annotations, with run lengths or polygons."""

import json
from typing import IO, Any

from tinysam.runtime.masks.polygons import polygons
from tinysam.runtime.results import MaskRecord, Result


def write_coco(result: Result, stream: IO[bytes]) -> None:
    """COCO json with compressed run lengths: exact, and read by pycocotools."""
    _write(result, stream, lambda mask: {"size": list(mask.rle.size), "counts": mask.rle.to_coco()})


def write_coco_polygons(result: Result, stream: IO[bytes]) -> None:
    """COCO json with polygons: holes are lost, corners are simplified, objects may have several parts."""
    _write(result, stream, lambda mask: [ring.ravel().tolist() for ring in polygons(mask.rle)])


def _write(result: Result, stream: IO[bytes], segmentation: Any) -> None:
    height, width = result.image_size
    document = {
        "info": {
            "description": "segmented by tinysam-run",
            "model": result.model,
            "backend": result.backend,
            "precision": result.precision,
            "notes": list(result.notes),
            "timing_ms": {stage: round(value, 3) for stage, value in result.timing_ms.items()},
        },
        "images": [{"id": 1, "file_name": result.name, "width": width, "height": height}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            _annotation(number, mask, segmentation(mask)) for number, mask in enumerate(result.masks, start=1)
        ],
    }
    stream.write(json.dumps(document).encode())


def _annotation(number: int, mask: MaskRecord, segmentation: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "segmentation": segmentation,
        "area": mask.area,
        "bbox": list(mask.bbox),
        "predicted_iou": round(mask.predicted_iou, 6),
        "stability_score": round(mask.stability_score, 6),
        "point_coords": [list(point) for point in mask.point_coords],
        "point_labels": list(mask.point_labels),
        "box": None if mask.box is None else list(mask.box),
        "crop_box": None if mask.crop_box is None else list(mask.crop_box),
    }
