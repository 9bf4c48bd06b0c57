"""Files appear under their name complete or not at all.

`replace_atomically` gives a hidden path beside the file and moves it there; `write_atomically` writes content that is
in memory; `open_atomically` is for results of a command: what prevents one becomes an error that says what to do.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tinysam.runtime.errors import OutputError, OutputNameError

_OF_ONE_NAME = (errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EFBIG, errno.ENOTEMPTY)
"""Errors that another file in the same folder does not meet."""


@contextmanager
def replace_atomically(path: Path, suffix: str = "") -> Iterator[Path]:
    """A hidden path beside `path`, whose file becomes `path` when the block ends without an error, else is removed.

    Other processes and threads may do the same. `suffix`: of the hidden name; some programs take the format from it.

    Raises:
        OSError: the folder cannot be made, or the file not be moved.
    """
    partial = path.with_name(f".{path.name}.{os.urandom(3).hex()}.partial{suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replaces `path` by `content` at once and on the disk; on failure (a full disk) the old file stays.

    Raises:
        OSError: it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with replace_atomically(path) as partial, partial.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def open_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A binary stream whose content becomes the file `path` when the block ends without an error.

    Raises:
        OutputNameError: a folder has that name, the name is too long, or the file system does not have such names.
        OutputError: the folder cannot be written, the disk is full.
    """
    try:
        with replace_atomically(path) as partial, partial.open("wb") as stream:
            yield stream
    except OSError as error:
        kind = OutputNameError if error.errno in _OF_ONE_NAME else OutputError
        raise kind(
            f"cannot write {path}: {error.strerror or error}; choose another folder with --out or make room"
        ) from error
