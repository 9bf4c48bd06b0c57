"""Writes a result in the formats that were asked for."""

from collections.abc import Sequence
from pathlib import Path

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


def write_result(result: Result, image: Image.Image, folder: Path, stem: str, formats: Sequence[str]) -> list[Path]:
    """Writes files named `stem` and the suffix of each format (see `tinysam.runtime.formats`); returns their paths.

    Drawing the overlay changes `image`.

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
                draw_overlay(image, result)
                image.save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
            else:
                _WRITERS[name](result, stream)
        written.append(path)
    return written
