"""COCO-format annotations with masks: `images/` beside `annotations.json`, read without trusting them."""

import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Files of a folder that are taken for photographs."""


class DataError(ValueError):
    """A data set that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Mask:
    """One annotated mask."""

    rle: dict[str, Any]
    """COCO run lengths of the whole photograph, compressed."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 of its extent in pixels of the photograph."""
    area: int
    """Pixels inside."""
    id: int
    """The annotation's own number."""

    def decode(self) -> NDArray[np.uint8]:
        """(height, width), 1 inside."""
        pixels: NDArray[np.uint8] = coco_mask.decode(self.rle)
        return pixels


@dataclass(frozen=True)
class Photo:
    """A photograph and what is annotated in it."""

    id: int
    """The image's own number."""
    path: Path
    width: int
    height: int
    masks: tuple[Mask, ...]
    source: str = ""


def compressed(segmentation: object, width: int, height: int) -> dict[str, Any]:
    """COCO polygons or run lengths as compressed run lengths; ValueError says what is wrong with them."""
    if isinstance(segmentation, list):
        if not segmentation:
            raise ValueError("empty polygon")
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list):
        rle = coco_mask.frPyObjects(segmentation, height, width)
    elif isinstance(segmentation, dict) and "counts" in segmentation:
        rle = {"size": segmentation.get("size"), "counts": segmentation["counts"]}
    else:
        raise ValueError("no mask")
    if list(rle["size"]) != [height, width]:
        raise ValueError("mask of another size than its image")
    return dict(rle)


def read_mask(annotation: dict[str, Any], width: int, height: int) -> Mask:
    """The mask of one annotation; ValueError for crowds, missing, empty and ill-sized ones."""
    if annotation.get("iscrowd"):
        raise ValueError("crowd region")
    rle = compressed(annotation.get("segmentation"), width, height)
    x, y, w, h = (float(v) for v in coco_mask.toBbox(rle))
    area = int(coco_mask.area(rle))
    if area == 0:
        raise ValueError("empty mask")
    return Mask(rle, (x, y, x + w, y + h), area, int(annotation.get("id", -1)))


def try_mask(annotation: dict[str, Any], width: int, height: int) -> Mask | str:
    """The mask of one annotation, or why it cannot be used."""
    try:
        return read_mask(annotation, width, height)
    except (ValueError, TypeError, KeyError) as error:
        return str(error)


def read_json(path: Path) -> dict[str, Any]:
    """The annotation file; DataError if it is missing, no JSON, or not COCO's."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected COCO annotations") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); expected COCO annotations") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{path}: no list of images; expected COCO annotations")
    return content


def read_folder(folder: Path) -> list[Photo]:
    """Photographs of a folder and the folders in it, without masks, by path; DataError if there are none.

    Files that are no pictures are skipped and named in the log.
    """
    found: list[Photo] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        size = picture_size(path)
        if size is None:
            log.warning("%s: cannot be read, left out", path)
        else:
            found.append(Photo(len(found) + 1, path, *size, (), folder.name))
    if not found:
        raise DataError(f"{folder}: no pictures ({', '.join(SUFFIXES)})")
    return found


def picture_size(path: Path) -> tuple[int, int] | None:
    """Width and height from a picture's header; None if it is none."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def read_coco(folder: Path) -> list[Photo]:
    """Photographs of a set with at least one usable mask, in the file's order.

    Unusable annotations (no mask, wrong size, empty, crowd) are skipped and counted in one logged line.

    Raises:
        DataError: The annotation file is missing or damaged, or nothing usable is in it.
    """
    path = folder / "annotations.json"
    content = read_json(path)
    by_image: dict[object, list[dict[str, Any]]] = {}
    for annotation in content.get("annotations", []):
        by_image.setdefault(annotation.get("image_id"), []).append(annotation)
    skipped: Counter[str] = Counter()
    photos = []
    for image in content["images"]:
        width, height = int(image["width"]), int(image["height"])
        read = [try_mask(annotation, width, height) for annotation in by_image.get(image["id"], [])]
        masks = [mask for mask in read if isinstance(mask, Mask)]
        skipped.update(why for why in read if isinstance(why, str))
        if masks:
            file = folder / "images" / image["file_name"]
            photos.append(Photo(int(image["id"]), file, width, height, tuple(masks), str(image.get("source", ""))))
    if skipped:
        log.warning("%s: skipped annotations: %s", path, ", ".join(f"{n} x {why}" for why, n in skipped.items()))
    if not photos:
        raise DataError(f"{path}: no photograph with a usable mask")
    return photos
