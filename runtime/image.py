"""Reads picture files: any kind to upright 8-bit RGB; whatever is wrong with a file becomes one `ImageError`.

What is done with depths, bands, transparency and colours is in `tinysam.runtime.samples`, for arrays as for files.
"""

import io
import stat
import sys
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from tinysam.runtime import deep, truncated
from tinysam.runtime.errors import ImageError
from tinysam.runtime.samples import Converted, array_to_rgb, to_rgb

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000")
"""Formats that are tried; PostScript and others that need another program to run are not among them."""
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pnm", ".pbm", ".tga", ".jp2", ".j2k"),
)
"""Files of a folder that are taken for pictures, lower case."""
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
"""Taken for pictures as well if pillow-heif is installed."""
MAX_PIXELS = 100_000_000
"""Default limit of width x height."""
STDIN = "-"
HEIC_HINT = "HEIC pictures need pillow-heif: pip install pillow-heif, or convert them to JPEG"

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
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_SUBFILE_TYPE = 254
_JPEG = ("JPEG", "MPO")


@dataclass(frozen=True)
class Photo:
    """A picture ready to be segmented."""

    image: Image.Image
    """Upright, mode RGB, in sRGB."""
    notes: tuple[str, ...] = ()
    """What a user should know of how it was read."""
    shown: Image.Image | None = None
    """Upright, mode RGB, in the colours of the picture's own profile, which its `info` has; None: `image` itself."""

    @property
    def for_overlay(self) -> Image.Image:
        """The picture to draw on: its `info` has the profile and EXIF of the file."""
        return self.image if self.shown is None else self.shown


def load_image(source: Path | str, max_pixels: int = MAX_PIXELS) -> Photo:
    """Reads a picture from a file, or from standard input if `source` is "-".

    EXIF orientation is applied, colours are converted to sRGB, transparency becomes white, other depths become 8 bits,
    of several frames the first is taken.

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


def can_read_heic() -> bool:
    """Whether pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def _open(source: Path | str, name: str) -> IO[bytes]:
    if name != str(source):
        return _whole(sys.stdin.buffer, name)
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if stat.S_ISFIFO(mode):
            with path.open("rb") as stream:
                return _whole(stream, name)
        if not stat.S_ISREG(mode):
            raise ImageError(f"{path}: not a file; expected a picture")
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: empty file; expected a picture")
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"{path}: no such file; expected a picture, a folder, a pattern or - for standard input"
        ) from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def _whole(stream: IO[bytes], name: str) -> io.BytesIO:
    data = stream.read()
    if not data:
        raise ImageError(f"{name}: empty; expected the bytes of a picture")
    return io.BytesIO(data)


def _read(stream: IO[bytes], name: str, max_pixels: int) -> Photo:
    image = _identify(stream, name)
    if image is None:
        samples, has_alpha, orientation = deep.read_with_tifffile(stream, name, max_pixels)
        return _upright(array_to_rgb(samples, has_alpha=has_alpha), orientation, ())
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"{name}: {image.width} x {image.height} pixels, the limit is {max_pixels}; "
            "raise --max-pixels if the file is trusted"
        )
    notes = _notes_of_file(image)
    has_16_bits = deep.has_16_bits(image)
    try:
        if image.format in _JPEG:
            truncated.check_padding(stream)
        image.load()
    except OSError as error:
        image, what = _completed(stream, image.format, error)
        notes = (*notes, what)
    orientation = _orientation(image)
    return _upright(_converted(stream, image, has_16_bits), orientation, notes)


def _identify(stream: IO[bytes], name: str) -> Image.Image | None:
    """The picture, not yet decoded; None for a TIFF file of a kind that Pillow does not know."""
    head = stream.read(64)
    stream.seek(0)
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    is_avif = brand in _AVIF_BRANDS or (brand in (b"mif1", b"msf1") and any(one in head for one in _AVIF_BRANDS))
    if brand in _HEIC_BRANDS and not is_avif:
        _register_heic(name)
    if head.startswith(b"RIFF"):
        stream = truncated.completed_webp(stream)
    try:
        return _open_picture(stream)
    except UnidentifiedImageError as error:
        if head[:4] in deep.TIFF_HEADS:
            return None
        if is_avif and "AVIF" not in Image.OPEN:
            raise ImageError(f"{name}: AVIF pictures need Pillow 11.3 or newer: pip install -U pillow") from error
        raise ImageError(f"{name}: not a picture; expected {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too many pixels ({error}); raise --max-pixels if the file is trusted") from error


def _register_heic(name: str) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ImageError(f"{name}: {HEIC_HINT}") from error
    register_heif_opener()


def _notes_of_file(image: Image.Image) -> tuple[str, ...]:
    notes = []
    if image.format != "MPO" and getattr(image, "is_animated", False):
        notes.append(f"has {getattr(image, 'n_frames', 'several')} frames, only the first is used")
    if image.format == "TIFF" and int(getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0)) & 1:
        notes.append(f"only its preview of {image.width} x {image.height} pixels can be read: convert raw files first")
    return tuple(notes)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block raises anything; the picture itself may be fine
        return 1


def _open_picture(stream: IO[bytes]) -> Image.Image:
    Image.preinit()
    try:
        return Image.open(stream, formats=[one for one in FORMATS if one in Image.OPEN])
    except UnidentifiedImageError:  # only now import Pillow's other formats
        Image.init()
        return Image.open(stream, formats=[one for one in FORMATS if one in Image.OPEN])


def _completed(stream: IO[bytes], kind: str | None, error: OSError) -> tuple[Image.Image, str]:
    """The decoded picture of a file that merely lacks its end, and what to say; else `error` again."""
    stream.seek(0)
    data = truncated.completed_jpeg(stream.read()) if kind in _JPEG else None
    if data is None:
        raise error
    image = _open_picture(io.BytesIO(data))
    image.load()
    return image, "the end of the file is missing, but the picture is whole"


def _converted(stream: IO[bytes], image: Image.Image, has_16_bits: bool) -> Converted:
    """A decoded picture as RGB, with those of its samples that Pillow gets wrong mended."""
    samples = deep.signed_samples(image)
    if samples is None and has_16_bits:
        samples = deep.all_16_bits(stream, image)
    if samples is not None:
        return array_to_rgb(samples, has_alpha=image.mode == "RGBA", info=image.info)
    converted = to_rgb(image)
    return converted.with_note("16-bit colours scaled to 8 bits") if has_16_bits else converted


def _upright(converted: Converted, orientation: int, notes: tuple[str, ...]) -> Photo:
    image, own = converted.image, converted.own_colors
    is_srgb = own is image
    turn = _UPRIGHT.get(orientation)
    if turn is not None:
        image, own = image.transpose(turn), own if is_srgb else own.transpose(turn)
    return Photo(image, (*notes, *converted.notes), None if is_srgb else own)
