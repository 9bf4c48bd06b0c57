"""The photograph with its masks: tinted areas, thin bright outlines, and the prompts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tinysam.runtime.outputs.palette import Color, color, lighter
from tinysam.runtime.results import MaskRecord, Result

FILL_OPACITY = 0.42
_POSITIVE: Color = (46, 204, 113)
_NEGATIVE: Color = (231, 76, 60)
_WHITE: Color = (255, 255, 255)
_SHADOW: Color = (0, 0, 0)
_SUPERSAMPLING = 4
_STRIP_COLUMNS = 512
"""Masks are drawn in strips of so many columns: nothing but the photograph itself has its size."""

Bools = NDArray[np.bool_]


def draw_overlay(image: Image.Image, result: Result) -> None:
    """Draws the result onto its photograph, in place (RGB, original size)."""
    thickness = max(1, round(max(image.size) / 320))
    for left in range(0, image.width, _STRIP_COLUMNS):
        _draw_strip(image, result.masks, left, min(left + _STRIP_COLUMNS, image.width), thickness)
    radius = max(3.0, max(image.size) / 110)
    for index, mask in enumerate(result.masks):
        if mask.crop_box is None:
            _draw_prompt(image, mask, lighter(color(index), 0.6), radius)


def _draw_strip(image: Image.Image, masks: Sequence[MaskRecord], left: int, right: int, thickness: int) -> None:
    """Tints and outlines the masks between two columns."""
    boxes = (_between(mask, left, right) for mask in masks)
    parts = [_Part(number + 1, masks[number], box) for number, box in enumerate(boxes) if box]
    # Number of the last mask that each pixel belongs to: the smallest, where masks come sorted by area.
    top = np.zeros((image.height, right - left), np.uint8 if len(masks) < 256 else np.uint16)
    for part in parts:
        part.within(top, left)[part.mask.rle.decode_crop(part.box)] = part.number
    for part in parts:
        _paste(image, color(part.number - 1), part.within(top, left) == part.number, part.box[:2], FILL_OPACITY)
    for part in parts:
        _outline(image, part, part.within(top, left) == part.number, thickness)


class _Part(NamedTuple):
    """What a strip holds of a mask."""

    number: int
    """Of the mask, from 1."""
    mask: MaskRecord
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 of the mask's box in the strip."""

    def within(self, strip: NDArray[Any], left: int) -> NDArray[Any]:
        """The box of a strip that begins at column `left`."""
        x0, y0, x1, y1 = self.box
        return strip[y0:y1, x0 - left : x1 - left]


def _between(mask: MaskRecord, left: int, right: int) -> tuple[int, int, int, int] | None:
    """The part of a mask's box between two columns."""
    x0, y0, x1, y1 = mask.rle.box
    x0, x1 = max(x0, left), min(x1, right)
    return (x0, y0, x1, y1) if x0 < x1 else None


def _outline(image: Image.Image, part: _Part, visible: Bools, thickness: int) -> None:
    """A bright line inside the mask's edge with a soft shadow, where no other mask lies on it."""
    x0, y0, x1, _ = part.box
    rgb = lighter(color(part.number - 1), 0.55)
    # Columns beside the strip decide how far its own are from the edge.
    wide = _between(part.mask, x0 - 2 * thickness, x1 + 2 * thickness)
    assert wide is not None
    around = part.mask.rle.decode_crop(wide)
    core = _eroded(around, thickness)
    shadow = core & ~_eroded(core, thickness)
    columns = slice(x0 - wide[0], x1 - wide[0])
    _paste(image, _SHADOW, shadow[:, columns] & visible, (x0, y0), 0.25)
    _paste(image, rgb, (around & ~core)[:, columns] & visible, (x0, y0), 1.0)


def _eroded(mask: Bools, pixels: int) -> Bools:
    """The mask without the outermost pixels (an octagonal brush)."""
    for step in range(pixels):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        if step % 2:
            mask = mask & padded[:-2, :-2] & padded[:-2, 2:] & padded[2:, :-2] & padded[2:, 2:]
    return mask


def _paste(image: Image.Image, rgb: Color, where: Bools, origin: tuple[int, int], opacity: float) -> None:
    if where.size:
        alpha = Image.fromarray(where.astype(np.uint8) * round(255 * opacity))
        image.paste(rgb, (*origin, origin[0] + alpha.width, origin[1] + alpha.height), alpha)


def _draw_prompt(image: Image.Image, mask: MaskRecord, rgb: Color, radius: float) -> None:
    if mask.box is not None:
        _draw_box(image, mask.box, rgb, max(1, round(radius / 4)))
    for point, label in zip(mask.point_coords, mask.point_labels, strict=True):
        _draw_point(image, point, _POSITIVE if label else _NEGATIVE, radius)


def _draw_box(image: Image.Image, box: tuple[float, float, float, float], rgb: Color, width: int) -> None:
    draw = ImageDraw.Draw(image)
    x0, y0, x1, y1 = (round(value) for value in box)
    draw.rectangle((x0 - width, y0 - width, x1 + width, y1 + width), outline=_SHADOW, width=3 * width)
    draw.rectangle((x0, y0, x1, y1), outline=rgb, width=width)


def _draw_point(image: Image.Image, point: tuple[float, float], rgb: Color, radius: float) -> None:
    """A disc with a white rim and a thin shadow, smooth at any size."""
    for scale, fill in ((1.2, _SHADOW), (1.1, _WHITE), (0.75, rgb)):
        reach = int(np.ceil(radius * scale)) + 1
        side = 2 * reach + 1
        disc = Image.new("L", (side * _SUPERSAMPLING,) * 2)
        centre, extent = side * _SUPERSAMPLING / 2, radius * scale * _SUPERSAMPLING
        ImageDraw.Draw(disc).ellipse((centre - extent, centre - extent, centre + extent, centre + extent), fill=255)
        smooth = disc.resize((side, side), Image.Resampling.BOX)
        image.paste(fill, (round(point[0]) - reach, round(point[1]) - reach), smooth)
