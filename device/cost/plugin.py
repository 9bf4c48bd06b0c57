"""Builds the counter plugin with the host's C compiler and reads what it wrote."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import astuple, dataclass
from pathlib import Path

from tinysam.runtime.atomic import replace_atomically

SOURCE = Path(__file__).with_name("insn_count.c")


class CompilerMissing(RuntimeError):
    """There is no C compiler to build the plugin with."""


@dataclass(frozen=True)
class Counts:
    """Instructions of one region, by class."""

    dot_product: int = 0
    """int8 dot products: sdot, udot."""
    vector: int = 0
    """Every other SIMD or floating-point instruction."""
    load_store: int = 0
    """Loads and stores, of vector registers too."""
    branch: int = 0
    """Branches, exceptions and system instructions."""
    other: int = 0
    """Integer arithmetic of general registers."""

    @property
    def total(self) -> int:
        """All classes together."""
        return sum(astuple(self))

    def __add__(self, right: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(right), strict=True)))

    def __sub__(self, right: Counts) -> Counts:
        return Counts(*(a - b for a, b in zip(astuple(self), astuple(right), strict=True)))


CLASSES = tuple(Counts.__dataclass_fields__)


def build_plugin(cache: Path) -> Path:
    """The plugin as a shared object below `cache`, compiled when absent or older than its source.

    Raises:
        CompilerMissing: no `cc`, or it failed; the message holds its first line.
    """
    target = cache / "libinsn_count.so"
    if target.exists() and target.stat().st_mtime >= SOURCE.stat().st_mtime:
        return target
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise CompilerMissing("counting instructions needs a C compiler: install gcc")
    with replace_atomically(target) as partial:
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(partial), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CompilerMissing(f"{compiler} cannot build {SOURCE.name}: {done.stderr.strip().splitlines()[0]}")
    return target


def read_regions(text: str) -> tuple[list[Counts], list[list[Counts]]]:
    """Split what the plugin wrote.

    Returns:
        The counts of every plain region in order, and for every traced region its snapshots: the counts so far at
        each reading of the clock, and at the end of the region.
    """
    plain: list[Counts] = []
    traced: list[list[Counts]] = []
    snapshots: list[Counts] = []
    for line in text.splitlines():
        what, _label, *numbers = line.split()
        counts = Counts(*map(int, numbers))
        if what == "clock":
            snapshots.append(counts)
        elif snapshots:
            traced.append([*snapshots, counts])
            snapshots = []
        else:
            plain.append(counts)
    return plain, traced
