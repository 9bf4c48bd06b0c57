"""Files whose end is missing although the picture is whole: cameras and transfers that stop a moment too early."""

import io
import random
import re
from typing import IO

from PIL import Image

_END = b"\xff\xd9"
_NOISE = [random.Random(seed).randbytes(4096).replace(b"\xff", b"\x7f") for seed in range(4)]
_RESTARTS = b"".join(bytes((0xFF, 0xD0 + index % 8)) + _NOISE[0][16 * index : 16 * index + 16] for index in range(256))
_TAILS = (*_NOISE, _RESTARTS)
"""What may follow entropy-coded data: noise without a marker, and noise between restart markers."""
_ZEROS = 4
"""Zeros at the end that may belong to the picture; more of them are space that was never written to."""
_COEFFICIENTS = 64
_SCAN = re.compile(rb"\xff(?![\x00\xd0-\xd7\xff])")
"""A marker that ends entropy-coded data: not a stuffed zero, not a restart, not a fill byte."""


def completed_jpeg(data: bytes) -> bytes | None:
    """The JPEG file with an end, if every pixel of it is there; None if something is really cut off.

    A whole picture does not depend on what follows its data, so it is decoded with several continuations. A
    progressive one must also have all its scans.
    """
    used = len(data.rstrip(b"\x00"))
    data = data[: used + _ZEROS].rstrip(b"\xff")
    if not _has_every_scan(data):
        return None
    ended = data + _END
    try:
        pixels = _decoded(ended)
        same = all(_decoded(data + tail + _END) == pixels for tail in _TAILS)
    except (OSError, SyntaxError, ValueError):
        return None
    return ended if same else None


def check_padding(stream: IO[bytes]) -> None:
    """OSError if a JPEG file has no end, but zeros there: decoders take these for grey blocks and are content."""
    stream.seek(-2 * _ZEROS, io.SEEK_END)
    tail = stream.read()
    stream.seek(0)
    if not any(tail) and not stream.read().rstrip(b"\x00").endswith(_END):
        raise OSError("the end of the file is zeros")


def completed_webp(stream: IO[bytes]) -> IO[bytes]:
    """The WebP file without metadata that is cut off behind its picture; as it is in all other cases."""
    data = stream.read()
    stream.seek(0)
    if data[8:12] != b"WEBP" or int.from_bytes(data[4:8], "little") + 8 <= len(data):
        return stream
    chunks, place = b"", 12
    while place + 8 <= len(data):
        end = place + 8 + int.from_bytes(data[place + 4 : place + 8], "little")
        if end > len(data):
            break
        chunks += data[place:end] + bytes(end % 2)
        place = end + end % 2
    return io.BytesIO(b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WEBP" + chunks)


def _decoded(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return image.tobytes()


def _has_every_scan(data: bytes) -> bool:
    """Whether all components are coded, in a progressive file all their coefficients to the last bit."""
    missing: dict[int, set[int]] = {}
    is_progressive = False
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            return False
        kind = data[place + 1]
        if kind == 0xFF:
            place += 1
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        part = data[place + 4 : place + 2 + length]
        place += 2 + length
        if kind in (0xC0, 0xC1, 0xC2) and len(part) >= 6:
            is_progressive = kind == 0xC2
            missing = {number: set(range(_COEFFICIENTS)) for number in part[6::3]}
        elif kind == 0xDA and part:
            components = part[1 : 1 + 2 * part[0] : 2]
            first, last, bits = part[-3:] if len(part) >= 4 else (0, 0, 0)
            for number in components:
                if not is_progressive:
                    missing.get(number, set()).clear()
                elif bits & 0x0F == 0:
                    missing.get(number, set()).difference_update(range(first, last + 1))
            following = _SCAN.search(data, place)
            place = following.start() if following else len(data)
    return bool(missing) and not any(missing.values())
