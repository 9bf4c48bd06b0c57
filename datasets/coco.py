"""COCO-format annotations with masks: `images/` beside `annotations.json`, read without trusting them."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from tinysam.runtime.masks.rle import Rle

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Files of a folder that are taken for photographs."""
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is missing, damaged, or no picture."""


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
    match segmentation:
        case list():
            return from_polygons(segmentation, width, height)
        case {"counts": list() | str(), "size": size} if size != [height, width]:
            raise ValueError("mask of another size than its image")
        case {"counts": list() as runs}:
            check_runs(runs, height * width)
            return dict(coco_mask.frPyObjects(segmentation, height, width))
        case {"counts": str() as text}:
            check_text(text, height, width)
            return {"size": [height, width], "counts": text}
    raise ValueError("no mask")


def from_polygons(polygons: list[Any], width: int, height: int) -> dict[str, Any]:
    """Compressed run lengths of polygons x0, y0, x1, y1, ...; those of less than three points do not count."""
    usable = [polygon for polygon in polygons if isinstance(polygon, list) and len(polygon) >= 6]
    if not usable:
        raise ValueError("empty polygon")
    return dict(coco_mask.merge(coco_mask.frPyObjects(usable, height, width)))


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
    except UNREADABLE:
        return None


def file_name(image: dict[str, Any]) -> str:
    """Path of a photograph below `images/`; LVIS gives an address only, whose end is COCO's folder and file."""
    if "file_name" in image:
        return str(image["file_name"])
    return "/".join(str(image["coco_url"]).split("/")[-2:])


def read_coco(folder: Path, bare: bool = False) -> list[Photo]:
    """Photographs of a set, in the file's order: those with at least one usable mask, or all if `bare`.

    Unusable annotations (no mask, wrong size, empty, damaged, crowd) are skipped and counted in one logged line.

    Raises:
        DataError: The annotation file is missing or damaged, or nothing usable is in it.
    """
    path = folder / "annotations.json"
    content = read_json(path)
    skipped: Counter[str] = Counter()
    try:
        photos = list(photos_of(content, folder / "images", skipped))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not COCO annotations ({error!r})") from error
    if skipped:
        log.warning("%s: skipped annotations: %s", path, ", ".join(f"{n} x {why}" for why, n in skipped.items()))
    if not any(photo.masks for photo in photos):
        raise DataError(f"{path}: no photograph with a usable mask")
    return [photo for photo in photos if photo.masks or bare]


def photos_of(content: dict[str, Any], images: Path, skipped: Counter[str]) -> Iterator[Photo]:
    """Every photograph of an annotation file; counts in `skipped` why annotations were left out."""
    by_image: dict[object, list[dict[str, Any]]] = {}
    for annotation in content.get("annotations", []):
        by_image.setdefault(annotation.get("image_id"), []).append(annotation)
    for image in content["images"]:
        width, height = int(image["width"]), int(image["height"])
        read = [try_mask(annotation, width, height) for annotation in by_image.get(image["id"], [])]
        skipped.update(why for why in read if isinstance(why, str))
        masks = tuple(mask for mask in read if isinstance(mask, Mask))
        path = images / file_name(image)
        yield Photo(int(image["id"]), path, width, height, masks, str(image.get("source", "")))
