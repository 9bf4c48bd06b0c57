"""Which pictures a command line means, and what their results are called."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinysam.runtime.errors import ImageError
from tinysam.runtime.image import STDIN, SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


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


def find_sources(arguments: Sequence[str], camera: int | None = None) -> list[Source]:
    """The pictures of files, folders, patterns, - and a camera; sorted within each, every one once.

    Names of results begin with the file's name without suffix; files that would clash keep their suffix (`a_png`),
    and if that is not enough get a number.

    Raises:
        ImageError: a folder or pattern without pictures.
    """
    paths = list(dict.fromkeys(path for argument in arguments for path in _expand(argument)))
    plain = [_stem(path) for path in paths]
    shared = {stem for stem, count in Counter(plain).items() if count > 1}
    taken: Counter[str] = Counter()
    sources = [] if camera is None else [Source(f"camera {camera}", f"camera-{camera}", camera)]
    for path, stem in zip(paths, plain, strict=True):
        stem = Path(path).name.replace(".", "_") if stem in shared else stem
        taken[stem] += 1
        sources.append(Source(path, stem if taken[stem] == 1 else f"{stem}-{taken[stem]}"))
    return sources


def _stem(path: str) -> str:
    return "stdin" if path == STDIN else Path(path).stem


def _expand(argument: str) -> list[str]:
    if argument == STDIN:
        return [STDIN]
    path = Path(argument)
    if path.is_dir():
        found = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        if not found:
            raise ImageError(f"{argument}: no pictures in this folder; expected files ending in {', '.join(SUFFIXES)}")
        return found
    if not path.exists() and glob.has_magic(argument):
        # pathlib has no glob for absolute patterns
        found = sorted(file for file in glob.glob(argument, recursive=True) if Path(file).is_file())  # noqa: PTH207
        if not found:
            raise ImageError(f"{argument}: no file matches this pattern")
        return found
    return [argument]
