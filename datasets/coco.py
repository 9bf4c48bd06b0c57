"""COCO-format annotations with masks, checked as they are read. Files and folders: `coco_files`."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from tinysam.datasets.coco_files import (
    SUFFIXES,
    UNREADABLE,
    DataError,
    Pictures,
    annotation_file,
    picture_size,
    read_json,
    size_of,
)
from tinysam.runtime.masks.rle import Rle

log = logging.getLogger(__name__)

__all__ = ["SUFFIXES", "UNREADABLE", "DataError", "Mask", "Photo", "read_coco", "read_folder", "read_json", "try_mask"]

_FARTHEST = 1e5
"""Coordinates are cut off this many pixels from the corner: pycocotools draws every step of an edge."""


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
    match segmentation:
        case list():
            return from_polygons(segmentation, width, height)
        case {"counts": list() | str(), "size": size} if list(size) != [height, width]:
            raise ValueError("mask of another size than its image")
        case {"counts": list() as runs}:
            runs = [int(run) if run == int(run) else run for run in runs]
            check_runs(runs, height * width)
            return dict(coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width))
        case {"counts": str() as text}:
            check_text(text, height, width)
            return {"size": [height, width], "counts": text}
    raise ValueError("no mask")


def from_polygons(polygons: list[Any], width: int, height: int) -> dict[str, Any]:
    """Compressed run lengths of polygons x0, y0, x1, y1, ...; those of less than three points do not count.

    One polygon without a list around it, and corners as pairs, are taken as well.
    """
    if polygons and all(isinstance(value, (int, float)) for value in polygons):
        polygons = [polygons]
    corners = [_corners(polygon) for polygon in polygons if isinstance(polygon, list)]
    usable = [polygon for polygon in corners if len(polygon) >= 6]
    if not usable:
        raise ValueError("empty polygon")
    return dict(coco_mask.merge(coco_mask.frPyObjects(usable, height, width)))


def _corners(polygon: list[Any]) -> list[float]:
    values = np.array(polygon, np.float64).ravel()
    if not np.isfinite(values).all():
        raise ValueError("polygon with numbers that are not finite")
    values = values[: len(values) // 2 * 2]
    return [float(value) for value in values.clip(-_FARTHEST, _FARTHEST)]


def check_runs(counts: list[Any], pixels: int) -> None:
    """ValueError unless the run lengths cover the photograph exactly; pycocotools would read beyond them."""
    if not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != pixels:
        raise ValueError("damaged run lengths")


def check_text(counts: str, height: int, width: int) -> None:
    """The same of compressed run lengths."""
    try:
        Rle.from_coco((height, width), counts)
    except ValueError as error:
        raise ValueError("damaged run lengths") from error


def read_mask(annotation: dict[str, Any], width: int, height: int) -> Mask:
    """The mask of one annotation; ValueError for crowds, missing, empty, damaged and ill-sized ones."""
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


def read_coco(data: Path, bare: bool = False) -> list[Photo]:
    """Photographs of a set, in the file's order: those with at least one usable mask, or all if `bare`.

    Unusable annotations (no mask, wrong size, empty, damaged, crowd) are skipped and counted in one logged line.

    Args:
        data: the set's folder, in one of the layouts of `coco_files`, or its annotation file.
        bare: whether photographs without masks count.

    Raises:
        DataError: The annotation file is missing or damaged, or nothing usable is in it.
    """
    path = annotation_file(data)
    content = read_json(path)
    skipped: Counter[str] = Counter()
    try:
        photos = list(photos_of(content, Pictures(path, content), skipped))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not COCO annotations ({error!r})") from error
    if skipped:
        log.warning("%s: skipped annotations: %s", path, ", ".join(f"{n} x {why}" for why, n in skipped.items()))
    if not any(photo.masks for photo in photos):
        raise DataError(f"{path}: no photograph with a usable mask")
    return [photo for photo in photos if photo.masks or bare]


def photos_of(content: dict[str, Any], pictures: Pictures, skipped: Counter[str]) -> Iterator[Photo]:
    """Every photograph of an annotation file; counts in `skipped` why annotations were left out."""
    by_image: dict[object, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation.get("image_id"), []).append(annotation)
    for image in content["images"]:
        path = pictures.find(image)
        width, height = size_of(image, pictures)
        read = [try_mask(annotation, width, height) for annotation in by_image.get(image["id"], [])]
        skipped.update(why for why in read if isinstance(why, str))
        masks = tuple(mask for mask in read if isinstance(mask, Mask))
        yield Photo(image["id"], path, width, height, masks, str(image.get("source", "")))
