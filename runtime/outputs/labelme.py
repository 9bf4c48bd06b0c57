"""Masks as a LabelMe document."""

import json
from typing import IO

from tinysam.runtime.masks.polygons import polygons
from tinysam.runtime.results import Result

_VERSION = "5.0.0"


def write_labelme(result: Result, stream: IO[bytes], image_path: str) -> None:
    """One polygon shape for each part of each object; the parts of an object share a `group_id`.

    `image_path` is the photograph's, relative to the folder of the file that is written.
    """
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
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    stream.write(json.dumps(document).encode())
