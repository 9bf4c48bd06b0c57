"""Which pictures a command line means, what is passed over, and what the results are called."""

import glob
import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tinysam.runtime.errors import ImageError
from tinysam.runtime.image import HEIC_SUFFIXES, STDIN, SUFFIXES, can_read_heic
from tinysam.runtime.outputs import FORMATS

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")

_MAX_NAME_BYTES = 150
"""Of a picture's name in those of its results: file systems allow 255, and suffixes follow."""
_NAMED = 5
"""So many files that are passed over are named."""
_RESULT = re.compile(
    "|".join(re.escape(kind.suffix).replace(r"\{number:03\}", r"\d+") + "$" for kind in FORMATS.values())
)


@dataclass(frozen=True)
class Source:
    """A picture to be read."""

    path: str
    """File, or - for standard input."""
    stem: str
    """What the names of its results begin with."""
    camera: int | None = None
    """Number of the camera, if it is one."""

    @property
    def is_video(self) -> bool:
        """Whether it is a camera or a video file."""
        return self.camera is not None or Path(self.path).suffix.lower() in VIDEO_SUFFIXES


@dataclass
class PassedOver:
    """Files of folders that are not taken, by reason."""

    folder: str
    files: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """One more file."""
        self.files.setdefault(reason, []).append(name)

    def __str__(self) -> str:
        reasons = []
        for reason, names in self.files.items():
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            reasons.append(f"{reason} ({len(names)}): {', '.join(names[:_NAMED])}{more}")
        return f"passed over: {'; '.join(reasons)}"


@dataclass(frozen=True)
class Sources:
    """What a command line means."""

    pictures: list[Source]
    """Sorted within each folder or pattern, every one once."""
    passed_over: list[PassedOver]
    """One for each folder that has more than pictures."""


def find_sources(arguments: Sequence[str], camera: int | None = None, out: str = "") -> Sources:
    """The pictures of files, folders, patterns, - and a camera.

    Names of results begin with the file's name without suffix, cut if it is very long; files that would clash (also
    where upper and lower case are the same) keep their suffix (`a_png`), and if that is not enough get a number.

    Args:
        arguments: of the command line.
        camera: number of the camera.
        out: folder of the results: what it holds of an earlier run is no picture.

    Raises:
        ImageError: a folder or pattern without pictures.
    """
    passed_over: list[PassedOver] = []
    paths = _once(path for argument in arguments for path in _expand(argument, out, passed_over))
    plain = [_stem(path) for path in paths]
    clashes = {key for key, count in Counter(map(_key, plain)).items() if count > 1}
    taken = set(map(_key, plain)) - clashes
    sources = [] if camera is None else [Source(f"camera {camera}", f"camera-{camera}", camera)]
    for path, stem in zip(paths, plain, strict=True):
        if _key(stem) in clashes:
            stem = _free(_shortened(Path(path).name.replace(".", "_")), taken)
            taken.add(_key(stem))
        sources.append(Source(path, stem))
    return Sources(sources, [one for one in passed_over if one.files])


def _once(paths: Iterable[str]) -> list[str]:
    """Every file once, also if its folder is reached in two ways."""
    known: dict[tuple[str, str], str] = {}
    for path in paths:
        folder, name = os.path.split(path)
        known.setdefault(("", STDIN) if path == STDIN else (os.path.realpath(folder), name), path)
    return list(known.values())


def _stem(path: str) -> str:
    return "stdin" if path == STDIN else _shortened(Path(path).stem)


def _key(stem: str) -> str:
    """Equal for names that some file system takes for the same."""
    return unicodedata.normalize("NFC", stem).casefold()


def _shortened(stem: str) -> str:
    data = os.fsencode(stem)
    if len(data) <= _MAX_NAME_BYTES:
        return stem
    return data[:_MAX_NAME_BYTES].decode("utf-8", "ignore") + "-" + hashlib.sha256(data).hexdigest()[:8]


def _free(stem: str, taken: set[str]) -> str:
    number, name = 1, stem
    while _key(name) in taken:
        number += 1
        name = f"{stem}-{number}"
    return name


def _expand(argument: str, out: str, passed_over: list[PassedOver]) -> list[str]:
    kind = _mode(argument)
    if stat.S_ISDIR(kind):
        return _files_of(argument, out, passed_over)
    return _matches(argument) if not kind and glob.has_magic(argument) else [argument]


def _files_of(folder: str, out: str, passed_over: list[PassedOver]) -> list[str]:
    """Pictures of a folder; hidden files do not count."""
    try:
        files = sorted(file for file in Path(folder).iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise ImageError(f"{folder}: cannot be read ({error.strerror}); expected a folder of pictures") from error
    results = os.path.realpath(out)
    holds_results = results == os.path.realpath(folder)
    found, others = [], PassedOver(folder)
    for file in files:
        if os.path.realpath(file) == results:
            continue
        reason = "results of an earlier run" if holds_results and _RESULT.search(file.name) else _why_not(file)
        if reason:
            others.add(reason, file.name)
        else:
            found.append(str(file))
    if not found:
        seen = f" ({others})" if others.files else ""
        raise ImageError(f"{folder}: no pictures in this folder{seen}; expected files ending in {', '.join(SUFFIXES)}")
    passed_over.append(others)
    return found


def _why_not(file: Path) -> str:
    """Why a file of a folder is passed over; empty if it is taken."""
    kind, suffix = _mode(file), file.suffix.lower()
    if stat.S_ISDIR(kind):
        return "folders, which a pattern such as '**/*.jpg' reaches into"
    if not stat.S_ISREG(kind):
        return "what is no file"
    if suffix in VIDEO_SUFFIXES:
        return "videos, which have to be named one by one"
    if suffix in HEIC_SUFFIXES:
        return "" if can_read_heic() else "HEIC pictures, which need pillow-heif (pip install pillow-heif)"
    return "" if suffix in SUFFIXES else "other files"


def _mode(path: str | Path) -> int:
    """Type of a file; 0 if there is none, its name is too long or its links lead nowhere."""
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError):
        return 0


def _matches(pattern: str) -> list[str]:
    """Files that match a pattern; `**` does not follow links, so that a loop of them has an end."""
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    base, rest = Path(*parts[:fixed]), str(Path(*parts[fixed:]))
    wants_hidden = any(part.startswith(".") for part in parts[fixed:])
    try:
        found = sorted(
            str(path)
            for path in base.glob(rest)
            if stat.S_ISREG(_mode(path)) and (wants_hidden or not _is_hidden(path.relative_to(base)))
        )
    except (OSError, ValueError, NotImplementedError):
        found = []
    if not found:
        raise ImageError(f"{pattern}: no file matches this pattern")
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
