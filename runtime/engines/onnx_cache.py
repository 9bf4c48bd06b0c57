"""Graphs as ONNX Runtime has optimized them for this processor, kept in the user's cache folder.

Optimizing takes longer than everything else that loading does, and gives the same each time.

1. What is kept holds for one model file, one version of the engine and one processor: its name begins with their hash.
2. It is written whole or not at all, and its name ends with a checksum of its content. What is damaged is made again.
3. A folder that cannot be written or read is no error: the model is optimized each time, as without a cache.

The folder is `$TINYSAM_CACHE`, else `tinysam-edge` in `$XDG_CACHE_HOME` or `~/.cache`. With `TINYSAM_CACHE=off` nothing
is kept.
"""

import hashlib
import os
import platform
import re
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import onnxruntime as ort

from tinysam.runtime.engines.known_bugs import CPUINFO

VARIABLE, OFF = "TINYSAM_CACHE", "off"
SUFFIX = ".onnx-optimized"
MOST_FILES = 16
"""Older ones are removed: each is about as large as its model file."""
_CHUNK_BYTES = 1 << 18

Open = Callable[[Path, Path | None, bool], ort.InferenceSession]
"""Opens a model file, saves its optimized graph if a path for it is given; True: it is such a graph, taken as it is."""


def cached_session(path: Path, sha256: str, open_model: Open) -> ort.InferenceSession:
    """A session of a model file, from the cache if it is there; else it is put there.

    Args:
        path: model file.
        sha256: of its content.
        open_model: see `Open`. Its errors for `path` are passed on.
    """
    folder = cache_folder()
    if folder is None:
        return open_model(path, None, False)
    key = _key(sha256)
    for kept in folder.glob(f"{key}-*{SUFFIX}"):
        if session := _open_kept(kept, open_model):
            return session
    return _open_and_keep(path, folder, key, open_model)


def cache_folder() -> Path | None:
    """Where graphs are kept; None if they are not to be, or there is no such place."""
    chosen = os.environ.get(VARIABLE)
    if chosen == OFF:
        return None
    if chosen:
        return Path(chosen)
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return None
    return Path(base) / "tinysam-edge"


def checksum(path: Path) -> str:
    """CRC-32 of a file: it has to show damage, and takes half as long as SHA-256 where the processor computes that."""
    value = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"


def _key(sha256: str) -> str:
    return hashlib.sha256("\n".join((sha256, ort.__version__, platform.machine(), _processor())).encode()).hexdigest()


def _processor() -> str:
    """Model and features of the first core by /proc/cpuinfo; without that file, `platform.processor`."""
    try:
        text = CPUINFO.read_text(errors="replace")
    except OSError:
        return platform.processor()
    pattern = r"^(?:vendor_id|cpu family|model|model name|flags|Features|CPU [a-z]+)\s*:.*$"
    return "\n".join(dict.fromkeys(re.findall(pattern, text, re.MULTILINE)))


def _open_kept(kept: Path, open_model: Open) -> ort.InferenceSession | None:
    """A session of what is kept; None if that is damaged, which removes it."""
    try:
        if kept.name.endswith(f"-{checksum(kept)}{SUFFIX}"):
            return open_model(kept, None, True)
    except Exception:  # unreadable, or refused by ONNX Runtime: the model file is opened instead
        pass
    with suppress(OSError):
        kept.unlink()
    return None


def _open_and_keep(path: Path, folder: Path, key: str, open_model: Open) -> ort.InferenceSession:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            saved = Path(unfinished) / "graph.onnx"
            session = open_model(path, saved, False)
            saved.replace(folder / f"{key}-{checksum(saved)}{SUFFIX}")
        _prune(folder)
    except OSError:
        return open_model(path, None, False)
    return session


def _prune(folder: Path) -> None:
    newest = sorted(folder.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in newest[MOST_FILES:]:
        file.unlink(missing_ok=True)
