"""Writes a result in the formats that were asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

from PIL import Image

from tinysam.runtime.formats import FORMATS
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
    "labelme": write_labelme,
    "npz": write_npz,
}
_JPEG_QUALITY = 92
_EXIF_IFD = 0x8769
_DATES = (0x0132,)
"""EXIF tag of the last change."""
_DETAILED_DATES = (0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9290, 0x9291, 0x9292)
"""EXIF tags of taking and digitizing, their time zones and fractions of a second."""


def write_result(result: Result, image: Image.Image, folder: Path, stem: str, formats: Sequence[str]) -> list[Path]:
    """Writes files named `stem` and the suffix of each format (see `tinysam.runtime.formats`); returns their paths.

    Drawing the overlay changes `image`; its `info` may hold the photograph's `icc_profile` and `exif`.

    Raises:
        OutputError: a file cannot be written. Those named earlier are complete.
    """
    written = []
    for name in formats:
        suffix = FORMATS[name].suffix
        if name == "mask":
            for number, mask in enumerate(result.masks, start=1):
                path = folder / (stem + suffix.format(number=number))
                with replacing(path) as stream:
                    write_mask(mask, stream)
                written.append(path)
            continue
        path = folder / (stem + suffix)
        with replacing(path) as stream:
            if name == "overlay":
                _write_overlay(result, image, stream)
            else:
                _WRITERS[name](result, stream)
        written.append(path)
    return written


def _write_overlay(result: Result, image: Image.Image, stream: IO[bytes]) -> None:
    """A JPEG file with the colour profile and the dates of the photograph; its orientation is no longer its own."""
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
