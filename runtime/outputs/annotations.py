"""Results as data for other programs: COCO and LabelMe json, numpy arrays."""

import json
import zipfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tinysam.runtime.masks.polygons import polygons, ring_area
from tinysam.runtime.outputs import Original
from tinysam.runtime.results import MaskRecord, Result

_LABELME_VERSION = "5.0.0"
_ZIP_LEVEL = 1


def write_coco(result: Result, _: Original, stream: IO[bytes]) -> None:
    """COCO json with compressed run lengths: exact, and read by pycocotools."""
    _write_document(result, stream, _run_lengths)


def write_coco_polygons(result: Result, _: Original, stream: IO[bytes]) -> None:
    """COCO json with polygons: corners are simplified, objects may have several parts, bridges lead to their holes."""
    _write_document(result, stream, _polygons)


def write_labelme(result: Result, original: Original, stream: IO[bytes]) -> None:
    """One polygon shape for each part of each object; the parts of an object share a `group_id`."""
    height, width = result.image_size
    shapes = [
        {
            "label": "object",
            "points": [[float(x), float(y)] for x, y in ring],
            "group_id": number,
            "shape_type": "polygon",
            "flags": {},
        }
        for number, mask in enumerate(result.masks, start=1)
        for ring in polygons(mask.rle)
    ]
    document: dict[str, object] = {
        "version": _LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": original.path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    stream.write(json.dumps(document).encode())


def write_npz(result: Result, _: Original, stream: IO[bytes]) -> None:
    """Writes `masks` bool (n, height, width) and, one entry for each mask, the numbers of `MaskRecord`.

    Masks go to the file one by one: hundreds of a large photograph would not fit into a small device's memory.
    """
    masks = result.masks
    small: dict[str, NDArray[Any]] = {
        "bboxes": np.array([mask.bbox for mask in masks], np.int64).reshape(-1, 4),
        "areas": np.array([mask.area for mask in masks], np.int64),
        "predicted_ious": np.array([mask.predicted_iou for mask in masks], np.float32),
        "stability_scores": np.array([mask.stability_score for mask in masks], np.float32),
        "image_size": np.array(result.image_size, np.int64),
        "info": np.array(json.dumps({"model": result.model, "backend": result.backend, "precision": result.precision})),
    }
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=_ZIP_LEVEL) as archive:
        with archive.open("masks.npy", "w", force_zip64=True) as member:
            header = {"descr": "|b1", "fortran_order": False, "shape": (len(masks), *result.image_size)}
            npy.write_array_header_1_0(member, header)  # type: ignore[no-untyped-call]
            for mask in masks:
                member.write(mask.mask().tobytes())
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w") as member:
                npy.write_array(member, array, allow_pickle=False)  # type: ignore[no-untyped-call]


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


def _write_document(result: Result, stream: IO[bytes], shape: Callable[[MaskRecord], dict[str, Any]]) -> None:
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
