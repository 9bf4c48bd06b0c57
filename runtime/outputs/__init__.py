"""Result files: what each format is called and which function writes it.

`write` writes a result in some of them, `pictures` and `annotations` hold the writers. Nothing heavy is imported here:
the help text of `tinysam-run` uses the table.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import Image


class Original(NamedTuple):
    """What a writer needs of the photograph besides its masks."""

    image: "Image.Image | None"
    """RGB, upright; its `info` may hold `icc_profile` and `exif`. None if no format draws on it."""
    path: str
    """Its file, relative to the folder of the results."""


class Format(NamedTuple):
    """One kind of output file."""

    suffix: str
    """Follows the picture's own name; `{number}` counts masks from 1: each has a file."""
    writer: str
    """Module of this package and its function: (result, original, stream), or (mask, stream) where each mask has a
    file."""
    meaning: str

    @property
    def has_file_per_mask(self) -> bool:
        """Whether every mask is a file of its own."""
        return "{number" in self.suffix

    def import_writer(self) -> Callable[..., None]:
        """The function that writes it."""
        module, name = self.writer.split(":")
        writer: Callable[..., None] = getattr(import_module(f"{__name__}.{module}"), name)
        return writer


FORMATS = {
    "overlay": Format(".overlay.jpg", "pictures:write_overlay", "the photograph with masks and prompts drawn on it"),
    "mask": Format(".mask-{number:03}.png", "pictures:write_mask", "one-bit PNG for each object"),
    "label": Format(".labels.png", "pictures:write_labels", "one PNG, pixel value = number of the object, 0 = none"),
    "json": Format(".coco.json", "annotations:write_coco", "COCO json with run-length encoded masks"),
    "polygons": Format(".polygons.json", "annotations:write_coco_polygons", "COCO json with polygons"),
    "labelme": Format(".labelme.json", "annotations:write_labelme", "LabelMe json"),
    "npz": Format(".npz", "annotations:write_npz", "numpy arrays: masks bool (n, height, width), boxes, scores"),
}

VIDEO_FORMATS = {"overlay": ".overlay.mp4", "json": ".tracks.jsonl"}
"""Those of a video, with their suffixes; the overlay is always written."""
