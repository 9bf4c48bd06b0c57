"""Pixels of any mode, depth and shape to upright-or-not 8-bit RGB: the one way in for files, PIL pictures and arrays.

1. Samples that are not 8-bit are scaled by what they hold: see `sample_range`.
2. Of more than four bands the first three are taken; two are grey and alpha, four are RGB and alpha.
3. Transparent pixels are laid on white, so that colours hidden under them stay hidden.
4. Colours are converted to sRGB by the picture's ICC profile: see `tinysam.runtime.colors`.

A note names every conversion that loses or assumes something.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinysam.runtime.colors import to_srgb
from tinysam.runtime.errors import ImageError

CHANNEL_ORDERS = ("RGB", "BGR")

_KEPT = ("icc_profile", "exif")
_WHITE = (255, 255, 255, 255)
_BITS = (1, 8, 10, 12, 14, 16)
"""Depths that cameras, scanners and masks have inside of wider samples."""
_DEEP_BITS = (24, 31, 32)
_SIGNED_HALVES = (1 << 15, 1 << 31)
_NO_DATA = (-9999.0, -32767.0, -32768.0, -99999.0, float(np.finfo(np.float32).min))
"""What maps hold where nothing was measured."""
_MARGIN = 0.1
"""Floating point pictures overshoot their range by up to about a tenth where they were resized or sharpened."""
_QUANTILES = (0.001, 0.999)
"""Ranges of floating point samples leave out a thousandth at either end: highlights and dead pixels."""
_LOOK_SAMPLES = 1 << 20
"""So many evenly spaced samples decide the quantiles of a large picture."""
_NARROW = 1 / 8
"""Whole numbers that use less than this part of their depth, as those of thermal cameras, are stretched."""


class Converted(NamedTuple):
    """A picture ready for the model."""

    image: Image.Image
    """Mode RGB, in sRGB."""
    notes: tuple[str, ...]
    """What a user should know of the conversion."""
    own_colors: Image.Image
    """Mode RGB in the colours of the picture's own profile, which its `info` holds; mostly the same object."""

    def with_note(self, note: str) -> "Converted":
        """The same with one more note."""
        return self._replace(notes=(*self.notes, note))


class Range(NamedTuple):
    """What samples mean black and white."""

    low: float
    high: float


def to_rgb(image: Any, image_format: str = "RGB") -> Converted:
    """An 8-bit RGB picture of a PIL picture of any mode, or of an array.

    Args:
        image: PIL picture, or array (height, width) or (height, width, bands) of any whole or real numbers or bool.
        image_format: order of an array's first three bands, `RGB` or `BGR`.

    Raises:
        ValueError: another `image_format`.
        ImageError: no pixels, no numbers, or another shape.
    """
    if image_format not in CHANNEL_ORDERS:
        raise ValueError(f"image_format is {image_format!r}, expected one of {', '.join(CHANNEL_ORDERS)}")
    if not isinstance(image, Image.Image):
        return array_to_rgb(np.asarray(image), image_format)
    if 0 in image.size:
        raise ImageError(f"image is {image.width} wide and {image.height} high: expected at least one pixel")
    notes: tuple[str, ...] = ()
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode.startswith(("I", "F")):
        pixels, notes = to_8_bit(np.asarray(image))
        image = _picture(pixels, image.info)
    return _finished(image, notes)


def array_to_rgb(
    pixels: NDArray[Any],
    image_format: str = "RGB",
    has_alpha: bool | None = None,
    info: Mapping[Any, Any] | None = None,
) -> Converted:
    """As `to_rgb`.

    Args:
        pixels: array (height, width) or (height, width, bands).
        image_format: see `to_rgb`.
        has_alpha: whether the last band is alpha; None: of two and of four bands it is.
        info: of the file's PIL picture, of which profile and EXIF are kept.

    Raises:
        ImageError: see `to_rgb`.
    """
    _check_array(pixels)
    notes: list[str] = []
    bands = 1 if pixels.ndim == 2 else pixels.shape[2]
    if bands == 1:
        values, scaling = to_8_bit(pixels.reshape(pixels.shape[:2]))
        return _finished(_picture(values, info), scaling)
    if has_alpha is None:
        # Screen grabbers fill a fourth channel with zeros: a picture that is transparent everywhere shows nothing.
        has_alpha = bands in (2, 4) and bool(pixels[..., -1].any())
        if has_alpha and (pixels[..., -1] != pixels[..., -1].max()).any():
            notes.append(f"{bands} channels, the last is taken as alpha and the others are laid on white")
    colors = pixels[..., : 1 if bands < 3 else 3]
    if bands > colors.shape[2] + has_alpha:
        used = "only the first is used" if bands < 3 else "only the first three are used, as red, green and blue"
        notes.append(f"{bands} bands, {used}")
    if colors.shape[2] == 3 and image_format == "BGR":
        colors = colors[..., ::-1]
    values, scaling = to_8_bit(colors)
    picture = _picture(values.squeeze(2) if values.shape[2] == 1 else values, info)
    if has_alpha:
        alpha, _ = to_8_bit(pixels[..., bands - 1])
        picture.putalpha(_picture(alpha))
    return _finished(picture, (*notes, *scaling))


def to_8_bit(samples: NDArray[Any]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Samples of any real dtype as bytes of the same shape, and a note where that is not plain.

    NaN becomes black; infinite and other values beyond the range become black or white.
    """
    if samples.dtype == np.uint8:
        return samples, ()
    if samples.dtype == np.bool_:
        return samples * np.uint8(255), ()
    notes = []
    kind = samples.dtype.name
    if samples.dtype.kind == "f":
        samples = samples.astype(np.float32 if samples.dtype.itemsize <= 4 else np.float64, copy=False)
        bad = samples.size - int(np.count_nonzero(np.isfinite(samples)))
        if bad:
            notes.append(f"{bad} samples are not finite: NaN is black, infinity black or white")
    low, high = sample_range(samples)
    notes.append(f"{kind} samples scaled to 8 bits: {low:.6g} is black, {high:.6g} is white")
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = samples.astype(np.float32)
        scaled -= low
        scaled *= 255 / (high - low)
        np.nan_to_num(scaled, copy=False, nan=0.0)
        np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
    return scaled.astype(np.uint8), tuple(notes)


def sample_range(samples: NDArray[Any]) -> Range:
    """Which samples are black and white.

    Whole numbers from 0 have the smallest usual depth that holds them (1, 8, 10, 12, 14 or 16 bits), unless they lie in
    a narrow band of it. Floating point samples are 0 to 1, -1 to 1, 0 to 255 or a whole number's depth, whichever comes
    first and holds almost all. What is left (signed, other ranges) is stretched from its 0.1 to its 99.9 % quantile.
    """
    look = _look(samples)
    if not look.size:
        return Range(0, 1)
    low, high = (float(value) for value in np.quantile(look, _QUANTILES))
    if samples.dtype.kind == "f":
        return _float_range(low, high)
    least, most = int(samples.min()), int(samples.max())
    if least < 0 and samples.dtype.itemsize == 1:
        return Range(-128, 127)
    if least >= 0:
        for bits in _BITS:
            white = (1 << bits) - 1
            if most <= white:
                return Range(low, high) if bits > 8 and white / 256 <= high - low < white * _NARROW else Range(0, white)
        for bits in _DEEP_BITS:
            # Far less than the depth is another quantity than brightness.
            if (1 << bits) // 4 <= most < 1 << bits:
                return Range(0, (1 << bits) - 1)
    for half in _SIGNED_HALVES:
        if -half <= low < -half / 2 and half / 2 <= high < half:
            return Range(-half, half - 1)
    return _stretched(low, high)


def _float_range(low: float, high: float) -> Range:
    for black, white in ((0, 1), (-1, 1), (0, 255), *((0, (1 << bits) - 1) for bits in _BITS[2:])):
        margin = _MARGIN * (white - black)
        if black - margin <= low and high <= white + margin:
            is_usual = white == 1 or (high >= white / 4 and high - low >= white * _NARROW)
            return Range(black, white) if is_usual else _stretched(low, high)
    return _stretched(low, high)


def _stretched(low: float, high: float) -> Range:
    return Range(low, high) if high > low else Range(low, low + max(1.0, 1e-6 * abs(low)))


def _look(samples: NDArray[Any]) -> NDArray[np.float64]:
    """Samples that were measured: finite ones, evenly spaced, without those that stand for no data."""
    flat = samples.reshape(-1)
    look: NDArray[np.float64] = flat[:: max(1, flat.size // _LOOK_SAMPLES)].astype(np.float64)
    look = look[np.isfinite(look)]
    if look.size and look.min() in _NO_DATA:
        look = look[look != look.min()]
    return look


def _picture(pixels: NDArray[np.uint8], info: Mapping[Any, Any] | None = None) -> Image.Image:
    return _with_info(Image.fromarray(np.ascontiguousarray(pixels)), info or {})


def _with_info(image: Image.Image, info: Mapping[Any, Any]) -> Image.Image:
    """The picture with those entries of another one's `info` that still hold for it."""
    image.info.update({key: info[key] for key in _KEPT if key in info})
    return image


def _check_array(pixels: NDArray[Any]) -> None:
    if pixels.dtype.kind not in "buif":
        raise ImageError(f"image has dtype {pixels.dtype}, expected uint8 in 0 to 255, or other real numbers")
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise ImageError(f"image has shape {pixels.shape}, expected (height, width, 3)")
    if pixels.ndim == 3 and pixels.shape[0] <= 4 < pixels.shape[2]:
        raise ImageError(
            f"image has shape {pixels.shape}, expected (height, width, 3): if channels come first, use "
            "image.transpose(1, 2, 0)"
        )


def _finished(image: Image.Image, notes: tuple[str, ...]) -> Converted:
    """Lays an 8-bit picture of any mode on white and converts its colours."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        laid = Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB")
        image = _with_info(laid, image.info)
    converted, own, note = to_srgb(image)
    return Converted(converted, (*notes, note) if note else notes, own)
