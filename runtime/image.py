"""Reads picture files: any mode to upright 8-bit RGB; whatever is wrong with a file becomes one `ImageError`."""

import io
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from tinysam.runtime.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000")
"""Formats that are tried; PostScript and others that need another program to run are not among them."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pnm", ".tga", ".jp2")
"""Files of a folder that are taken for pictures, lower case."""
MAX_PIXELS = 100_000_000
"""Default limit of width x height."""
STDIN = "-"

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
_WHITE = (255, 255, 255, 255)


@dataclass(frozen=True)
class Photo:
    """A picture ready to be segmented."""

    image: Image.Image
    """Upright, mode RGB."""
    notes: tuple[str, ...] = ()
    """What a user should know of how it was read."""


def load_image(source: Path | str, max_pixels: int = MAX_PIXELS) -> Photo:
    """Reads a picture from a file, or from standard input if `source` is "-".

    EXIF orientation is applied, transparency becomes white, 16 bits become 8, of several frames the first is taken.

    Raises:
        FileNotFoundError: there is no such file.
        ImageError: it cannot be read, is not a picture, is damaged, or has more than `max_pixels` pixels.
    """
    name = "standard input" if str(source) == STDIN else str(source)
    stream = _open(source, name)
    with stream, warnings.catch_warnings():
        # Pillow's own limit warns; ours, checked before decoding, decides.
        warnings.simplefilter("ignore")
        try:
            return _read(stream, name, max_pixels)
        except ImageError:
            raise
        except MemoryError as error:
            raise ImageError(f"{name}: not enough memory to decode it; scale it down first") from error
        except Exception as error:  # decoders meet damaged files with every kind of exception
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(f"{name}: damaged picture ({reason[:160]}); expected a whole file") from error


def _open(source: Path | str, name: str) -> IO[bytes]:
    if name != str(source):
        data = sys.stdin.buffer.read()
        if not data:
            raise ImageError("standard input: empty; expected the bytes of a picture")
        return io.BytesIO(data)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file; expected a picture, a folder, a pattern or - for standard input"
        )
    if not path.is_file():
        raise ImageError(f"{path}: not a file; expected a picture")
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: empty file; expected a picture")
        return path.open("rb")
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def _read(stream: IO[bytes], name: str, max_pixels: int) -> Photo:
    try:
        image: Image.Image = Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not a picture; expected {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too many pixels ({error}); raise --max-pixels if the file is trusted") from error
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"{name}: {image.width} x {image.height} pixels, the limit is {max_pixels}; "
            "raise --max-pixels if the file is trusted"
        )
    notes = []
    if image.format != "MPO" and getattr(image, "is_animated", False):
        notes.append(f"{name}: has {getattr(image, 'n_frames', 'several')} frames, only the first is used")
    orientation = _orientation(image)
    image.load()
    if image.mode.startswith(("I", "F")):
        notes.append(f"{name}: {image.mode} samples scaled to 8 bits")
    rgb = _to_rgb(image)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    return Photo(rgb, tuple(notes))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block raises anything; the picture itself may be fine
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        return _to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Divides 16-bit samples by 257; takes floating point samples as 0 to 1 if none is above 1, else as 0 to 255."""
    samples = np.asarray(image).astype(np.float32)
    np.nan_to_num(samples, copy=False)
    highest = float(samples.max())
    if image.mode == "F":
        samples *= 255 if highest <= 1 else 1
    elif image.mode.startswith("I;16") or highest > 255:
        samples /= 257
    return Image.fromarray(np.clip(np.rint(samples), 0, 255).astype(np.uint8))
