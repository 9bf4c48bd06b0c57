"""Results as pictures: the overlay, one-bit masks, and one PNG of labels.

The overlay is the photograph with tinted areas, thin bright outlines, and the prompts. Colours are easy to tell apart:
one of three lightnesses, hues a golden angle apart in OKLCH (Ottosson 2020, A perceptual color space for image
processing).
"""

import math
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tinysam.runtime.errors import ImageError
from tinysam.runtime.outputs import Original
from tinysam.runtime.results import MaskRecord, Result

Color = tuple[int, int, int]
Bools = NDArray[np.bool_]

FILL_OPACITY = 0.42
_POSITIVE: Color = (46, 204, 113)
_NEGATIVE: Color = (231, 76, 60)
_WHITE: Color = (255, 255, 255)
_SHADOW: Color = (0, 0, 0)
_SUPERSAMPLING = 4
_STRIP_PIXELS, _STRIP_COLUMNS = 300_000, 32
"""Masks are drawn in strips of so many pixels, or so many columns if that is more: nothing but the photograph itself
has its size. Beside one of 12 megapixels, larger strips would be the peak of a run's memory."""

GOLDEN_ANGLE = 137.508
"""Degrees between the hues of neighbouring numbers: any run of numbers spreads evenly over the circle."""
_FIRST_HUE = 230.0
_LIGHTNESS, _LIGHTNESS_STEP, _CHROMA = 0.70, 0.10, 0.20
"""Of those tried, with the first hue, these keep the first twelve colours farthest apart: 73 in RGB."""

_JPEG_QUALITY = 92
_JPEG_SIDE = 65500
"""Most pixels that libjpeg writes in a row or column."""
_EXIF_IFD = 0x8769
_DATES = (0x0132,)
"""EXIF tag of the last change."""
_DETAILED_DATES = (0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9290, 0x9291, 0x9292)
"""EXIF tags of taking and digitizing, their time zones and fractions of a second."""
_PNG_LEVEL = 1
"""zlib level of PNG files: masks shrink to almost nothing at any level, higher ones only take longer."""


def write_overlay(result: Result, original: Original, stream: IO[bytes]) -> None:
    """A JPEG file with the colour profile and the dates of the photograph; its orientation is no longer its own."""
    image = original.image
    assert image is not None
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


def write_mask(mask: MaskRecord, stream: IO[bytes]) -> None:
    """A one-bit PNG, white on the object."""
    Image.fromarray(mask.mask()).save(stream, "PNG", compress_level=_PNG_LEVEL)


def write_labels(result: Result, _: Original, stream: IO[bytes]) -> None:
    """A PNG whose pixels hold the number of the last mask they belong to, from 1; 0 is background.

    Up to 255 masks it has 8 bits and a palette of the overlay's colours, above that 16 bits.
    """
    small = len(result.masks) < 256
    labels = np.zeros(result.image_size, np.uint8 if small else np.uint16)
    for index, mask in enumerate(result.masks):
        x0, y0, x1, y1 = mask.rle.box
        labels[y0:y1, x0:x1][mask.rle.decode_crop(mask.rle.box)] = index + 1
    picture = Image.fromarray(labels)
    if small:
        picture.putpalette([0, 0, 0, *(value for index in range(255) for value in color(index))])
    picture.save(stream, "PNG", compress_level=_PNG_LEVEL)


def draw_overlay(image: Image.Image, result: Result) -> None:
    """Draws the result onto its photograph, in place (RGB, original size)."""
    thickness = max(1, round(max(image.size) / 320))
    columns = max(_STRIP_COLUMNS, _STRIP_PIXELS // image.height)
    for left in range(0, image.width, columns):
        _draw_strip(image, result.masks, left, min(left + columns, image.width), thickness)
    radius = max(3.0, max(image.size) / 110)
    for index, mask in enumerate(() if result.everything else result.masks):
        _draw_prompt(image, mask, lighter(color(index), 0.6), radius)


def _draw_strip(image: Image.Image, masks: Sequence[MaskRecord], left: int, right: int, thickness: int) -> None:
    """Tints and outlines the masks between two columns, all of them at once: a pixel shows one mask."""
    boxes = (_between(mask, left, right) for mask in masks)
    parts = [_Part(number + 1, masks[number], box) for number, box in enumerate(boxes) if box]
    if not parts:
        return
    x0, y0 = (min(part.box[axis] for part in parts) for axis in (0, 1))
    x1, y1 = (max(part.box[axis] for part in parts) for axis in (2, 3))
    # Number of the last mask that each pixel belongs to: the smallest, where masks come sorted by area.
    top: NDArray[Any] = np.zeros((y1 - y0, x1 - x0), np.uint8 if len(masks) < 256 else np.uint16)
    lines, shadow = np.zeros_like(top), np.zeros(top.shape, np.bool_)
    for part in parts:
        part.within(top, x0, y0)[part.mask.rle.decode_crop(part.box)] = part.number
    for part in filter(None, (_visible(part, part.within(top, x0, y0)) for part in parts)):
        visible = part.within(top, x0, y0) == part.number
        line, soft = _outline(part, thickness)
        part.within(lines, x0, y0)[line & visible] = part.number
        part.within(shadow, x0, y0)[soft & visible] = True
    tints = {part.number: color(part.number - 1) for part in parts}
    bright = {number: lighter(tint, 0.55) for number, tint in tints.items()}
    _paste(image, (x0, y0), _painted(top, tints), top > 0, FILL_OPACITY)
    _paste(image, (x0, y0), _SHADOW, shadow, 0.25)
    _paste(image, (x0, y0), _painted(lines, bright), lines > 0, 1.0)


class _Part(NamedTuple):
    """What a strip holds of a mask."""

    number: int
    """Of the mask, from 1."""
    mask: MaskRecord
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 of the mask's box in the strip."""

    def within(self, area: NDArray[Any], left: int, upper: int) -> NDArray[Any]:
        """The box of a part of the image that begins at column `left` and row `upper`."""
        x0, y0, x1, y1 = self.box
        return area[y0 - upper : y1 - upper, x0 - left : x1 - left]


def _between(mask: MaskRecord, left: int, right: int) -> tuple[int, int, int, int] | None:
    """The part of a mask's box between two columns."""
    x0, y0, x1, y1 = mask.rle.box
    x0, x1 = max(x0, left), min(x1, right)
    return (x0, y0, x1, y1) if x0 < x1 else None


def _visible(part: _Part, numbers: NDArray[Any]) -> _Part | None:
    """The part with the box of what is seen of it; `numbers`: which mask is seen where, in the box that it has."""
    seen = numbers == part.number
    columns, rows = (np.flatnonzero(seen.any(axis)) for axis in (0, 1))
    if not len(rows):
        return None
    x0, y0, _, _ = part.box
    left, upper, right, lower = map(int, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return part._replace(box=(x0 + left, y0 + upper, x0 + right, y0 + lower))


def _outline(part: _Part, thickness: int) -> tuple[Bools, Bools]:
    """Two parts of the box: a line inside the mask's edge, and a shadow inside the line."""
    (x0, y0, x1, y1), (left, upper, right, lower), margin = part.box, part.mask.rle.box, 2 * thickness
    # Pixels beside the box decide how far its own are from the edge.
    first, top = max(left, x0 - margin), max(upper, y0 - margin)
    around = part.mask.rle.decode_crop((first, top, min(right, x1 + margin), min(lower, y1 + margin)))
    core = _eroded(around, thickness)
    shadow = core & ~_eroded(core, thickness)
    own = slice(y0 - top, y1 - top), slice(x0 - first, x1 - first)
    return (around & ~core)[own], shadow[own]


def _eroded(mask: Bools, pixels: int) -> Bools:
    """The mask without its outermost pixels, by an octagonal brush.

    The octagon is what a square and a diamond, each of half its radius, make together, and those are sums of lines: two
    along the axes, and two along the diagonals with a cross.
    """
    square = pixels // 2
    diamond = pixels - square
    mask = np.pad(mask, pixels)
    for down, right, length in ((0, 1, 2 * square), (1, 0, 2 * square), (1, 1, diamond - 1), (1, -1, diamond - 1)):
        mask = _eroded_along(mask, down, right, length)
    inner: Bools = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return inner


def _eroded_along(mask: Bools, down: int, right: int, length: int) -> Bools:
    """Where the mask holds at a pixel and `length` more in one direction; smaller by the extent of that line."""
    done = 0
    while done < length:
        step = min(done + 1, length - done)  # the line so far, twice
        height, width = mask.shape[0] - step * down, mask.shape[1] - step * abs(right)
        near = max(0, -step * right)
        far = near + step * right
        mask = mask[:height, near : near + width] & mask[step * down :, far : far + width]
        done += step
    return mask


def _painted(numbers: NDArray[Any], colors: Mapping[int, Color]) -> Color | Image.Image:
    """Masks' numbers in their colours; a colour alone stands for a picture of it."""
    if len(colors) == 1:
        return next(iter(colors.values()))
    table = np.zeros((max(colors) + 1, 3), np.uint8)
    table[list(colors)] = list(colors.values())
    return Image.fromarray(table.take(numbers, axis=0))


def _paste(
    image: Image.Image, origin: tuple[int, int], paint: Color | Image.Image, where: Bools, opacity: float
) -> None:
    """Paints where `where` holds; its top left corner is at `origin`."""
    alpha = Image.fromarray(where.astype(np.uint8) * np.uint8(round(255 * opacity)))
    image.paste(paint, (*origin, origin[0] + alpha.width, origin[1] + alpha.height), alpha)


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


def color(index: int) -> Color:
    """The colour of object `index`: one of three lightnesses, hues a golden angle apart in OKLCH (Ottosson 2020)."""
    hue = math.radians(_FIRST_HUE + GOLDEN_ANGLE * index)
    lightness = _LIGHTNESS + _LIGHTNESS_STEP * (index % 3 - 1)
    return _oklab_to_rgb(lightness, _CHROMA * math.cos(hue), _CHROMA * math.sin(hue))


def lighter(rgb: Color, amount: float) -> Color:
    """`rgb` mixed with white; `amount` 0 to 1."""
    red, green, blue = (round(value + (255 - value) * amount) for value in rgb)
    return red, green, blue


def _oklab_to_rgb(lightness: float, a: float, b: float) -> Color:
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = _encode(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short)
    green = _encode(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short)
    blue = _encode(-0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short)
    return red, green, blue


def _encode(linear: float) -> int:
    """Linear light 0 to 1 to an sRGB byte."""
    linear = min(max(linear, 0.0), 1.0)
    encoded = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return round(255 * encoded)
