"""Files with samples that Pillow decodes in part, with the wrong sign, or not at all.

Pillow has no mode for 16-bit colours, nor for 16-bit grey with transparency, and keeps their upper bytes. Of colours
that use all 16 bits this loses nothing that matters; a picture of 12 bits would be nearly black. Satellites and
microscopes write TIFF files that it does not open.
"""

import sys
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinysam.runtime.errors import ImageError

TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files, in both byte orders."""

_DEEP_GREY = "LA;16B"
_DEEP = ("RGB;16", "RGBA;16", _DEEP_GREY)
"""Pillow's names, of colours without byte order, of the samples in question."""
_USED = 1 << 6
"""Upper bytes below this are those of less than 15 bits."""
_SAMPLE_FORMAT, _BITS_PER_SAMPLE, _ORIENTATION = 339, 258, 274
_UNSIGNED, _SIGNED = 1, 2
_ALPHA = (1, 2)
"""Values of TIFF's ExtraSamples that mean transparency."""


def has_16_bits(image: Image.Image) -> bool:
    """Whether a picture that is not decoded yet has such samples."""
    tiles = getattr(image, "tile", ())
    return bool(tiles) and all(str(_raw_mode(tile)).startswith(_DEEP) for tile in tiles)


def all_16_bits(stream: IO[bytes], image: Image.Image) -> NDArray[np.uint16] | None:
    """uint16 (height, width, bands) of a decoded picture with such samples: 2 of grey, else 3 or 4.

    None if it has colours whose upper bytes will do. The lower bytes of a file are what Pillow takes for the upper ones
    in the other byte order; grey and transparency are four bytes, as one pixel of RGBA.
    """
    upper = np.asarray(image)
    stream.seek(0)
    again = Image.open(stream, formats=[str(image.format)])
    if all(_raw_mode(tile) == _DEEP_GREY for tile in again.tile):
        again.tile = [_with_raw_mode(tile, "RGBA") for tile in again.tile]
        pairs: NDArray[np.uint16] = np.ascontiguousarray(again).view(">u2").astype(np.uint16)
        return pairs
    if int(upper[..., :3].max()) >= _USED:
        return None
    again.tile = [_with_raw_mode(tile, _in_other_order(str(_raw_mode(tile)))) for tile in again.tile]
    both: NDArray[np.uint16] = (upper.astype(np.uint16) << 8) | np.asarray(again)
    return both


def signed_samples(image: Image.Image) -> NDArray[Any] | None:
    """Samples of a decoded TIFF file whose sign Pillow gets wrong: signed bytes, unsigned 32 bits. Else None."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return None
    kind, bits = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0], tags.get(_BITS_PER_SAMPLE, (1,))[0]
    if image.mode == "L" and (kind, bits) == (_SIGNED, 8):
        return np.asarray(image).view(np.int8)
    if image.mode == "I" and (kind, bits) == (_UNSIGNED, 32):
        return np.asarray(image).view(np.uint32)
    return None


def read_with_tifffile(stream: IO[bytes], name: str, max_pixels: int) -> tuple[NDArray[Any], bool, int]:
    """A TIFF file that Pillow does not open: more bands, half floats, floating point colours.

    Returns:
        Samples (height, width) or (height, width, bands), whether the last band is alpha, and the EXIF orientation.

    Raises:
        ImageError: tifffile is not installed, or the first page is too large or no picture.
    """
    try:
        import tifffile
    except ImportError as error:
        raise ImageError(
            f"{name}: a TIFF file of a kind that Pillow does not read; pip install tifffile, or convert it to PNG"
        ) from error
    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        page = file.pages.first
        if page.imagewidth * page.imagelength > max_pixels:
            raise ImageError(
                f"{name}: {page.imagewidth} x {page.imagelength} pixels, the limit is {max_pixels}; "
                "raise --max-pixels if the file is trusted"
            )
        pixels = np.asarray(page.asarray())
        if page.axes.startswith("S"):
            pixels = np.moveaxis(pixels, 0, -1)
        if pixels.ndim not in (2, 3) or pixels.shape[:2] != (page.imagelength, page.imagewidth):
            raise ImageError(f"{name}: a TIFF file with axes {page.axes}; expected rows, columns and bands")
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind != "f":
            pixels = np.invert(pixels)
        has_alpha = any(int(kind) in _ALPHA for kind in page.extrasamples)
        return pixels, has_alpha, int(page.tags.valueof(_ORIENTATION, 1))


def _raw_mode(tile: Any) -> object:
    arguments = tile[3]
    return arguments[0] if isinstance(arguments, tuple) and arguments else arguments


def _with_raw_mode(tile: Any, name: str) -> Any:
    codec, extents, offset, arguments = tile
    return type(tile)(codec, extents, offset, (name, *arguments[1:]) if isinstance(arguments, tuple) else name)


def _in_other_order(name: str) -> str:
    own = name[-1].replace("N", "L" if sys.byteorder == "little" else "B")
    return name[:-1] + ("B" if own == "L" else "L")
