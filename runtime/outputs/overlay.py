"""The photograph with its masks: tinted areas, thin bright outlines, and the prompts."""

from collections.abc import Iterator
from typing import Any

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
_BAND_ROWS = 256
"""Large masks are drawn in bands of so many rows: no copy of a photograph's size is made."""

Bools = NDArray[np.bool_]


def draw_overlay(image: Image.Image, result: Result) -> None:
    """Draws the result onto its photograph, in place (RGB, original size)."""
    top = _topmost(result)
    thickness = max(1, round(max(image.size) / 320))
    for index, mask in enumerate(result.masks):
        for x0, y0, visible in _bands(top, index + 1, mask):
            _paste(image, color(index), visible, (x0, y0), FILL_OPACITY)
    for index, mask in enumerate(result.masks):
        _outline(image, mask, top, index + 1, thickness)
    radius = max(3.0, max(image.size) / 110)
    for index, mask in enumerate(result.masks):
        if mask.crop_box is None:
            _draw_prompt(image, mask, lighter(color(index), 0.6), radius)


def _topmost(result: Result) -> NDArray[Any]:
    """Number of the last mask that each pixel belongs to, from 1: the smallest, where masks come sorted by area."""
    top = np.zeros(result.image_size, np.uint8 if len(result.masks) < 256 else np.uint16)
    for index, mask in enumerate(result.masks):
        x0, y0, x1, y1 = mask.rle.box
        top[y0:y1, x0:x1][mask.rle.decode_crop(mask.rle.box)] = index + 1
    return top


def _bands(top: NDArray[Any], number: int, mask: MaskRecord) -> Iterator[tuple[int, int, Bools]]:
    """Where a mask is on top, in horizontal bands of its box: x and y of a band's corner, and its pixels."""
    x0, y0, x1, y1 = mask.rle.box
    for y in range(y0, y1, _BAND_ROWS):
        yield x0, y, top[y : min(y + _BAND_ROWS, y1), x0:x1] == number


def _outline(image: Image.Image, mask: MaskRecord, top: NDArray[Any], number: int, thickness: int) -> None:
    """A bright line inside the mask's edge with a soft shadow, where no other mask lies on it."""
    inside = mask.rle.decode_crop(mask.rle.box)
    rgb = lighter(color(number - 1), 0.55)
    _, box_y, _, _ = mask.rle.box
    for x0, y0, visible in _bands(top, number, mask):
        # Rows around the band decide how far its own are from the edge.
        first = max(0, y0 - box_y - 2 * thickness)
        around = inside[first : y0 - box_y + len(visible) + 2 * thickness]
        core = _eroded(around, thickness)
        shadow = core & ~_eroded(core, thickness)
        rows = slice(y0 - box_y - first, y0 - box_y - first + len(visible))
        _paste(image, _SHADOW, shadow[rows] & visible, (x0, y0), 0.25)
        _paste(image, rgb, (around & ~core)[rows] & visible, (x0, y0), 1.0)


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
