"""Masks as COCO annotations, with run lengths or polygons."""

import json
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from tinysam.runtime.masks.polygons import polygons, ring_area
from tinysam.runtime.results import MaskRecord, Result


def write_coco(result: Result, stream: IO[bytes]) -> None:
    """COCO json with compressed run lengths: exact, and read by pycocotools."""
    _write(result, stream, _run_lengths)


def write_coco_polygons(result: Result, stream: IO[bytes]) -> None:
    """COCO json with polygons: corners are simplified, objects may have several parts, bridges lead to their holes."""
    _write(result, stream, _polygons)


def _run_lengths(mask: MaskRecord) -> dict[str, Any]:
    segmentation = {"size": list(mask.rle.size), "counts": mask.rle.to_coco()}
    return {"segmentation": segmentation, "area": mask.area, "bbox": list(mask.bbox)}


def _polygons(mask: MaskRecord) -> dict[str, Any]:
    """Area and box are those of the polygons that are written, which differ a little from the mask's."""
    rings = polygons(mask.rle)
    corners = np.concatenate(rings) if rings else np.zeros((1, 2), np.int64)
    (x0, y0), (x1, y1) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return {
        "segmentation": [ring.ravel().tolist() for ring in rings],
        "area": sum(map(ring_area, rings)),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
    }


def _write(result: Result, stream: IO[bytes], shape: Callable[[MaskRecord], dict[str, Any]]) -> None:
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
        "annotations": [_annotation(number, mask, shape(mask)) for number, mask in enumerate(result.masks, start=1)],
    }
    stream.write(json.dumps(document).encode())


def _annotation(number: int, mask: MaskRecord, shape: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        **shape,
        "predicted_iou": round(mask.predicted_iou, 6),
        "stability_score": round(mask.stability_score, 6),
        "point_coords": [list(point) for point in mask.point_coords],
        "point_labels": list(mask.point_labels),
        "box": None if mask.box is None else list(mask.box),
        "crop_box": None if mask.crop_box is None else list(mask.crop_box),
    }
