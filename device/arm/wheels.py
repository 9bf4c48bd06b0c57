"""The engines' aarch64 wheels, fetched by pip on any host."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tinysam.runtime.engines.formats import FORMATS

PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
BASE = ("numpy>=1.23", "pillow>=10.1")
ENGINES = {name: form.packages[0].device_requirement for name, form in FORMATS.items()}
"""Requirement per engine on a device."""


class WheelsUnavailable(RuntimeError):
    """pip could not fetch the wheels; the message holds its last line."""


def download(python: str, folder: Path, engines: tuple[str, ...] = tuple(ENGINES)) -> Path:
    """Fetch the wheels of numpy, Pillow, the engines and all they need into `folder`, for aarch64 Linux.

    Args:
        python: version of the device's Python, as `3.11`.
        folder: made if absent; wheels already in it are kept.
        engines: names of their formats.

    Raises:
        WheelsUnavailable: no network, or no wheel for that Python.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _pip_download(python, "--dest", str(folder), *BASE, *(ENGINES[engine] for engine in engines))
    return folder


def install(wheelhouse: Path, site: Path) -> Path:
    """Unpack every wheel of a wheelhouse into `site`, for use as PYTHONPATH by an emulated Python."""
    site.mkdir(parents=True, exist_ok=True)
    for wheel in sorted(wheelhouse.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    return site


def _pip_download(python: str, *arguments: str) -> None:
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    options += [f"--platform={name}" for name in PLATFORMS]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", *options, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise WheelsUnavailable(f"wheels for Python {python} on aarch64: {lines[-1]}")
