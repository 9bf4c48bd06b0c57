"""Representative image sets: a folder, a glob, a text list, a COCO json, or the photographs bundled in scikit-image.

The choice is seeded and what was chosen is part of the set, so that the same command finds the same images.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.photographs import bundled_photographs

Pixels = npt.NDArray[np.uint8]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
FEWEST = 4
"""Fewer images than this do not represent anything."""
FLATTEST = 8
"""A picture whose channels all span less than this (of 255) is of one colour."""
DUPLICATE_BITS = 4
"""Pictures whose 64-bit difference hashes differ in at most this many bits count as one."""


@dataclass(frozen=True)
class CalibrationImage:
    """One picture of the set."""

    name: str
    pixels: Pixels
    """(H, W, 3) RGB, upright; long side at most that asked for when the set was read."""
    photograph: str = ""
    """Name of the photograph that it is a view of, if it is not one itself."""


@dataclass(frozen=True)
class ImageSet:
    """The pictures that were chosen, and how many were left out and why."""

    source: str
    images: tuple[CalibrationImage, ...]
    skipped: dict[str, int] = field(default_factory=dict)
    """Reason -> number of files."""

    @property
    def sha256(self) -> str:
        """Hash of names and pixels, in order."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(f"{image.name} {image.pixels.shape}".encode())
            digest.update(image.pixels.tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """What the manifest says of the set."""
        return {
            "source": self.source,
            "images": [image.name for image in self.images],
            "skipped": self.skipped,
            "sha256": self.sha256,
        }


def list_files(source: Path) -> list[Path]:
    """Image files that `source` names, sorted: a folder (searched deeply), a glob, a `.txt` list or a COCO `.json`."""
    if source.is_dir():
        found = [path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES]
    elif source.suffix == ".txt" and source.is_file():
        lines = source.read_text(encoding="utf-8").splitlines()
        found = [source.parent / line.strip() for line in lines if line.strip()]
    elif source.suffix == ".json" and source.is_file():
        found = coco_files(source)
    else:
        found = glob(source)
    if not found:
        raise CalibrationError(
            f"calibration images {source}: nothing found; give a folder of photographs, a glob, a .txt list "
            "or a COCO .json"
        )
    return sorted(found)


def glob(pattern: Path) -> list[Path]:
    """Files that match a pattern such as `photos/**/*.jpg`."""
    anchor = Path(pattern.anchor) if pattern.anchor else Path()
    relative = pattern.relative_to(anchor)
    return [path for path in anchor.glob(str(relative)) if path.is_file()] if relative.parts else []


def coco_files(source: Path) -> list[Path]:
    """Files of a COCO json, which lie beside it or in `images/` beside it."""
    try:
        names = [image["file_name"] for image in json.loads(source.read_text(encoding="utf-8"))["images"]]
    except (ValueError, KeyError, TypeError) as error:
        raise CalibrationError(f"calibration images {source}: not a COCO json with images ({error})") from error
    folder = source.parent / "images"
    return [(folder if folder.is_dir() else source.parent) / name for name in names]


def read_pixels(path: Path, long_side: int) -> Pixels:
    """(H, W, 3) RGB, upright, shrunk so that the long side is at most `long_side` pixels."""
    with Image.open(path) as image:
        image.draft("RGB", (2 * long_side, 2 * long_side))
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((long_side, long_side), Image.Resampling.BILINEAR, reducing_gap=None)
    return np.asarray(upright)


def difference_hash(pixels: Pixels) -> int:
    """64-bit hash of the signs of horizontal differences in a 9x8 thumbnail: alike for near-duplicates."""
    small = np.asarray(Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return int("".join("1" if bit else "0" for bit in (small[:, 1:] > small[:, :-1]).ravel()), 2)


def fault(path: Path, long_side: int, hashes: list[int]) -> tuple[str, Pixels | None]:
    """Why a file cannot be used, or "" and its pixels; remembers the hash of what it accepts."""
    try:
        pixels = read_pixels(path, long_side)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError):
        return "unreadable", None
    if int(np.ptp(pixels, axis=(0, 1)).max()) < FLATTEST:
        return "one colour", None
    mine = difference_hash(pixels)
    if any(bin(mine ^ other).count("1") <= DUPLICATE_BITS for other in hashes):
        return "near-duplicate", None
    hashes.append(mine)
    return "", pixels


def read_images(source: Path, count: int, seed: int, long_side: int) -> ImageSet:
    """Chooses `count` usable images of `source`.

    Raises:
        CalibrationError: nothing was found, or fewer than `FEWEST` images are usable.
    """
    files = list_files(source)
    random.Random(seed).shuffle(files)
    chosen: list[CalibrationImage] = []
    skipped: Counter[str] = Counter()
    hashes: list[int] = []
    for path in files:
        if len(chosen) == count:
            break
        reason, pixels = fault(path, long_side, hashes)
        if pixels is None:
            skipped[reason] += 1
        else:
            chosen.append(CalibrationImage(path.name, pixels))
    if len(chosen) < min(FEWEST, count):
        left_out = ", ".join(f"{n} {reason}" for reason, n in skipped.items()) or "none left out"
        raise CalibrationError(
            f"calibration images {source}: {len(chosen)} usable, at least {FEWEST} needed ({left_out})"
        )
    return ImageSet(str(source), tuple(chosen), dict(skipped))


def views(pixels: Pixels) -> Iterator[tuple[str, Pixels]]:
    """A photograph whole, mirrored, and cropped at two scales."""
    height, width, _ = pixels.shape
    yield "whole", pixels
    yield "right", pixels[height // 4 :, width // 3 :]
    yield "mirrored", np.ascontiguousarray(pixels[:, ::-1])
    yield "left", pixels[: height * 3 // 4, : width * 2 // 3]


def bundled_images(count: int, long_side: int) -> ImageSet:
    """The default set: scikit-image's photographs, then crops and flips of them, `count` in all."""
    photographs = [(path.stem, read_pixels(path, long_side)) for path in bundled_photographs()]
    by_view = zip(*(list(views(pixels)) for _, pixels in photographs), strict=True)
    images = [
        CalibrationImage(f"{stem}-{view}", pixels, stem)
        for row in by_view
        for (stem, _), (view, pixels) in zip(photographs, row, strict=True)
    ]
    return ImageSet("scikit-image", tuple(images[:count]))


def judged_images(images: ImageSet, count: int) -> list[CalibrationImage]:
    """Views on which INT8 is judged: other crops of the chosen pictures than those that ranges were found on.

    Corners of the pictures, three fifths of their sides. Pictures begin with each of the four corners in turn, the next
    four mirrored, and so on; a picture that is used again gives another corner, mirrored the other way.
    """
    made = []
    for turn in range(4):
        for i, image in enumerate(images.images):
            corner, mirrored = (i + turn) % 4, (i // 4 + turn) % 2
            height, width, _ = image.pixels.shape
            rows = slice(None, -(-height * 3 // 5)) if corner in (0, 3) else slice(height * 2 // 5, None)
            cols = slice(None, -(-width * 3 // 5)) if corner in (0, 2) else slice(width * 2 // 5, None)
            crop = image.pixels[rows, cols]
            pixels = np.ascontiguousarray(crop[:, ::-1]) if mirrored else crop
            if int(np.ptp(pixels, axis=(0, 1)).max()) >= FLATTEST:
                name = f"{image.name}-judged-{corner}{'-mirrored' * mirrored}"
                made.append(CalibrationImage(name, pixels, image.photograph or image.name))
    return made[:count]


def load_image_set(source: Path | None, count: int = 32, seed: int = 0, long_side: int = 1024) -> ImageSet:
    """The user's images, or the bundled ones if `source` is None."""
    if source is None:
        return bundled_images(count, long_side)
    return read_images(source, count, seed, long_side)
