"""Writing an artifact folder elsewhere and moving it into place when it is whole."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinysam.export.errors import ExportError

ABANDONED = 24 * 3600
"""Seconds without a change after which a temporary folder was left by an export that was killed."""


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
        folder = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
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
    """Removes temporary folders that killed exports to this destination left."""
    for folder in destination.parent.glob(f".{destination.name}.*"):
        if folder != previous(destination) and time.time() - folder.stat().st_mtime > ABANDONED:
            shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, destination: Path) -> None:
    """Moves `folder` to `destination`, replacing what is there; the old artifacts are never half gone."""
    folder.chmod(0o755)
    if destination.exists():
        destination.replace(previous(destination))
    folder.replace(destination)
    shutil.rmtree(previous(destination), ignore_errors=True)
