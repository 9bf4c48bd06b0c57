"""A Raspberry Pi bundle tried on an emulated board: its installer as it is, then a photograph with every engine.

The masks are compared with those that this machine computes with the same files.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinysam.device.arm.emulator import Emulator
from tinysam.export.pages import replace_section
from tinysam.runtime import cli
from tinysam.runtime.engines.formats import FORMATS

BACKENDS = {name: form.title for name, form in FORMATS.items()}
PRECISIONS = {"int8": "INT8", "fp32": "fp32"}
CASES = tuple(itertools.product(PRECISIONS, BACKENDS))
"""(precision, backend) of the photographs' runs."""
PICTURE, PROMPT = "selftest/picture.jpg", "--point 220,120 --format mask"
INSTALL_TIMEOUT_S, RUN_TIMEOUT_S = 1500, 900


class TrialError(RuntimeError):
    """A command failed on the board; the message holds it and what it said."""


@dataclass(frozen=True)
class Agreement:
    """One engine's mask on the board against this machine's."""

    iou: float
    identical: bool

    def __str__(self) -> str:
        return "identical" if self.identical else f"{self.iou:.4f}"


@dataclass(frozen=True)
class Trial:
    """What came out on one board."""

    python: str
    debian: str
    cpu: str
    installer: str
    """What the installer printed."""
    masks: Mapping[tuple[str, str], Agreement]
    """By precision and backend."""


def try_bundle(emulator: Emulator, bundle: Path, artifacts: Path) -> Trial:
    """Install an unpacked bundle offline with both engines and segment its picture.

    Args:
        emulator: a board without engines of its own.
        bundle: unpacked archive with a wheelhouse; what is made lands in the folder around it.
        artifacts: the model with both precisions, as the bundle may hold one only.

    Raises:
        TrialError: the installer or `tinysam-run` failed.
    """
    work = bundle.parent
    binds = {work: "/work", artifacts.resolve(): "/model"}
    # pip would spend minutes of emulation on compiling Python files ahead of use.
    command = f"PIP_COMPILE=0 /work/{bundle.name}/install.sh --prefix /work/tinysam --backend both"
    installer = _check(emulator.shell(command, binds=binds, timeout_s=INSTALL_TIMEOUT_S))
    masks = {}
    for precision, backend in CASES:
        out, options = f"{backend}-{precision}", f"{PROMPT} --backend {backend} --precision {precision}"
        command = f"/work/tinysam/bin/tinysam-run /work/{bundle.name}/{PICTURE} {options} --model /model"
        _check(emulator.shell(f"{command} --out /work/{out}", binds=binds, timeout_s=RUN_TIMEOUT_S))
        here = _here(bundle / PICTURE, options, artifacts, work / f"here-{out}")
        masks[precision, backend] = compare(_read_mask(work / out), here)
    return Trial(emulator.release.python, emulator.release.debian, emulator.board.cpu, installer, masks)


def compare(mask: NDArray[np.bool_], expected: NDArray[np.bool_]) -> Agreement:
    """IoU of two masks (height, width); two empty ones are identical."""
    union = (mask | expected).sum()
    return Agreement(float((mask & expected).sum() / union) if union else 1.0, bool((mask == expected).all()))


def write_page(page: Path, trials: Sequence[Trial]) -> None:
    """Put a table of the trials into the section `boards` of a Markdown page."""
    names = [f"{BACKENDS[backend]} {PRECISIONS[precision]}" for precision, backend in CASES]
    lines = [
        f"| Debian, Python | processor | installed offline | {' | '.join(names)} |",
        f"| --- | --- | --- |{' --- |' * len(names)}",
    ]
    for trial in sorted(trials, key=lambda trial: (trial.debian, trial.cpu)):
        cells = [f"{trial.debian}, {trial.python}", trial.cpu, "yes", *(str(trial.masks[case]) for case in CASES)]
        lines.append(f"| {' | '.join(cells)} |")
    replace_section(page, "boards", "\n".join(lines))


def _check(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode != 0:
        raise TrialError(f"exit status {done.returncode}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout


def _here(picture: Path, options: str, artifacts: Path, out: Path) -> NDArray[np.bool_]:
    with contextlib.redirect_stdout(io.StringIO()):
        status = cli.main([str(picture), *options.split(), "--model", str(artifacts), "--out", str(out)])
    if status != 0:
        raise TrialError(f"tinysam-run failed on this machine with exit status {status}")
    return _read_mask(out)


def _read_mask(folder: Path) -> NDArray[np.bool_]:
    (path,) = folder.glob("*.png")
    return np.asarray(Image.open(path)).astype(np.bool_)
