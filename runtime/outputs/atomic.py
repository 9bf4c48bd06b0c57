"""Output files appear under their name complete or not at all; an error says what prevents it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tinysam.runtime.atomic import replaced
from tinysam.runtime.errors import OutputError, OutputNameError

_OF_ONE_NAME = (errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EFBIG, errno.ENOTEMPTY)
"""Errors that another file in the same folder does not meet."""


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary stream whose content becomes the file `path` when the block ends without an error.

    Raises:
        OutputNameError: a folder has that name, the name is too long, or the file system does not have such names.
        OutputError: the folder cannot be written, the disk is full.
    """
    try:
        with replaced(path) as partial, partial.open("wb") as stream:
            yield stream
    except OSError as error:
        kind = OutputNameError if error.errno in _OF_ONE_NAME else OutputError
        raise kind(
            f"cannot write {path}: {error.strerror or error}; choose another folder with --out or make room"
        ) from error
