"""Files appear under their name complete or not at all."""

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
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary stream whose content becomes the file `path` when the block ends without an error.

    Until then it goes to a hidden file beside it, which is removed if anything fails.

    Raises:
        OutputNameError: a folder has that name, the name is too long, or the file system does not have such names.
        OutputError: the folder cannot be written, the disk is full.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            yield stream
        partial.replace(path)
    except OSError as error:
        kind = OutputNameError if error.errno in _OF_ONE_NAME else OutputError
        raise kind(
            f"cannot write {path}: {error.strerror or error}; choose another folder with --out or make room"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
