"""Writing an artifact folder elsewhere and moving it into place when it is whole."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinysam.export.errors import ExportError

LOCK = ".lock"
"""Suffix of the file beside a temporary folder that its process holds locked; the lock ends with the process."""


@contextmanager
def workspace(destination: Path) -> Iterator[Path]:
    """A temporary folder on the destination's file system, removed at the end whatever happens.

    Raises:
        ExportError: the folder cannot be written.
    """
    recover(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        sweep(destination)
        held, name = tempfile.mkstemp(LOCK, f".{destination.name}.", destination.parent)
        fcntl.flock(held, fcntl.LOCK_EX)
        lock, folder = Path(name), Path(name.removesuffix(LOCK))
        folder.mkdir()
    except OSError as error:
        raise ExportError(f"cannot write to {destination.parent}: {error.strerror}; choose another --out") from error
    try:
        yield folder
    except OSError as error:
        if error.errno is None:
            raise
        raise ExportError(f"writing artifacts failed: {error.strerror} ({error.filename or folder})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(held)


def previous(destination: Path) -> Path:
    """Where the old artifacts wait while the new ones are moved into place."""
    return destination.with_name(f".{destination.name}.previous")


def recover(destination: Path) -> None:
    """Puts the old artifacts back if an export was interrupted between the two moves of `publish`."""
    old = previous(destination)
    if old.is_dir():
        if destination.exists():
            shutil.rmtree(old)
        else:
            old.rename(destination)


def sweep(destination: Path) -> None:
    """Removes temporary folders that killed exports to this destination left: no process holds their lock."""
    for lock in destination.parent.glob(f".{destination.name}.*{LOCK}"):
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(lock.with_name(lock.name.removesuffix(LOCK)), ignore_errors=True)
            lock.unlink(missing_ok=True)


def publish(folder: Path, destination: Path) -> None:
    """Moves `folder` to `destination`, replacing what is there; the old artifacts are never half gone."""
    folder.chmod(0o755)
    if destination.exists():
        destination.replace(previous(destination))
    folder.replace(destination)
    shutil.rmtree(previous(destination), ignore_errors=True)
