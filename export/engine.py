"""Model files in their engines, quietly."""

from pathlib import Path

from tinysam.runtime import engines
from tinysam.runtime.manifest import ModelFile
from tinysam.runtime.quiet import quiet_native


def load_engine(folder: Path, file: ModelFile, threads: int | None = None) -> engines.Engine:
    """One file of an artifact folder, ready to run; without `threads` on every core.

    LiteRT's first interpreter of a process says so on standard error, in the middle of a line of progress.
    """
    with quiet_native():
        return engines.load(folder / file.path, file, threads or engines.usable_cores())
