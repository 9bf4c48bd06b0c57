"""The output formats of `tinysam-run`. Imports nothing heavy: the help text of the command uses it."""

from typing import NamedTuple


class Format(NamedTuple):
    """One kind of output file."""

    suffix: str
    """Follows the picture's own name; `{number}` counts masks from 1."""
    meaning: str


FORMATS = {
    "overlay": Format(".overlay.jpg", "the photograph with masks and prompts drawn on it"),
    "mask": Format(".mask-{number:03}.png", "one-bit PNG for each object"),
    "label": Format(".labels.png", "one PNG, pixel value = number of the object, 0 = none"),
    "json": Format(".coco.json", "COCO json with run-length encoded masks"),
    "polygons": Format(".polygons.json", "COCO json with polygons"),
    "labelme": Format(".labelme.json", "LabelMe json"),
    "npz": Format(".npz", "numpy arrays: masks bool (n, height, width), boxes, scores"),
}

VIDEO_FORMATS = {"overlay": ".overlay.mp4", "json": ".tracks.jsonl"}
"""Those of a video, with their suffixes; the overlay is always written."""
