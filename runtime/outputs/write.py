"""Writes a result in the formats that were asked for."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from PIL import Image

from tinysam.runtime.errors import ImageError
from tinysam.runtime.formats import FORMATS, VIDEO_FORMATS
from tinysam.runtime.outputs.arrays import write_npz
from tinysam.runtime.outputs.atomic import replacing
from tinysam.runtime.outputs.coco import write_coco, write_coco_polygons
from tinysam.runtime.outputs.labelme import write_labelme
from tinysam.runtime.outputs.overlay import draw_overlay
from tinysam.runtime.outputs.pictures import write_labels, write_mask
from tinysam.runtime.results import Result

_WRITERS = {
    "label": write_labels,
    "json": write_coco,
    "polygons": write_coco_polygons,
    "npz": write_npz,
}
_JPEG_QUALITY = 92
_JPEG_SIDE = 65500
"""Most pixels that libjpeg writes in a row or column."""
_EXIF_IFD = 0x8769
_DATES = (0x0132,)
"""EXIF tag of the last change."""
_DETAILED_DATES = (0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9290, 0x9291, 0x9292)
"""EXIF tags of taking and digitizing, their time zones and fractions of a second."""


def write_result(
    result: Result,
    image: Image.Image | None,
    folder: Path,
    stem: str,
    formats: Sequence[str],
    photo: Path | None = None,
) -> list[Path]:
    """Writes files named `stem` and the suffix of each format (see `tinysam.runtime.formats`); returns their paths.

    Drawing the overlay changes `image`; its `info` may hold the photograph's `icc_profile` and `exif`.

    Args:
        result: masks of one photograph.
        image: the photograph, RGB; None if there is no overlay among the formats.
        folder: of the files; it is made if need be.
        stem: beginning of their names.
        formats: keys of `FORMATS`.
        photo: the photograph's file, which LabelMe opens beside the masks.

    Raises:
        ImageError: the photograph is too large for an overlay.
        OutputError: a file cannot be written. Those named earlier are complete.
    """
    written = []
    for name in formats:
        if name == "mask":
            written += _write_masks(result, folder, stem)
            continue
        path = folder / (stem + FORMATS[name].suffix)
        with replacing(path) as stream:
            if name == "overlay":
                assert image is not None
                _write_overlay(result, image, stream)
            elif name == "labelme":
                write_labelme(result, stream, _relative(photo, folder) if photo else result.name)
            else:
                _WRITERS[name](result, stream)
        written.append(path)
    return written


def are_written(folder: Path, stem: str, formats: Sequence[str], is_video: bool) -> bool:
    """Whether the results of a picture or video are there. A picture without masks has no files of format `mask`."""
    if is_video:
        suffixes = [VIDEO_FORMATS[name] for name in {"overlay", *formats}]
    else:
        suffixes = [FORMATS[name].suffix.format(number=1) for name in formats]
    return all((folder / (stem + suffix)).is_file() for suffix in suffixes)


def _write_masks(result: Result, folder: Path, stem: str) -> list[Path]:
    """Files of single masks, the first one last: where it is, all of them are."""
    paths = [folder / (stem + FORMATS["mask"].suffix.format(number=number + 1)) for number in range(len(result.masks))]
    for path, mask in reversed(list(zip(paths, result.masks, strict=True))):
        with replacing(path) as stream:
            write_mask(mask, stream)
    return paths


def _relative(photo: Path, folder: Path) -> str:
    """The photograph as seen from the folder, links followed; its full path if it is on another drive."""
    target = Path(os.path.realpath(photo.parent)) / photo.name
    try:
        return Path(os.path.relpath(target, os.path.realpath(folder))).as_posix()
    except ValueError:
        return target.as_posix()


def _write_overlay(result: Result, image: Image.Image, stream: IO[bytes]) -> None:
    """A JPEG file with the colour profile and the dates of the photograph; its orientation is no longer its own."""
    if max(image.size) > _JPEG_SIDE:
        raise ImageError(
            f"{result.name}: {image.width} x {image.height} pixels, an overlay (JPEG) has at most {_JPEG_SIDE} a side; "
            "ask for other formats"
        )
    draw_overlay(image, result)
    kept = {"exif": dates_of(image), "icc_profile": image.info.get("icc_profile")}
    image.save(
        stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0, **{key: value for key, value in kept.items() if value}
    )


def dates_of(image: Image.Image) -> bytes:
    """The EXIF block of a picture reduced to when it was taken; empty if it does not say."""
    try:
        exif = image.getexif()
        kept = Image.Exif()
        kept.update({tag: exif[tag] for tag in _DATES if tag in exif})
        details = exif.get_ifd(_EXIF_IFD)
        dates = {tag: details[tag] for tag in _DETAILED_DATES if tag in details}
        if dates:
            kept.get_ifd(_EXIF_IFD).update(dates)
        return kept.tobytes() if kept or dates else b""
    except Exception:  # a damaged EXIF block raises anything
        return b""
