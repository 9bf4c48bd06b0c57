"""The runtime-only wheel: `tinysam.runtime` built by itself, for devices that need neither torch nor the weights."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import tinysam.runtime
from tinysam.device.arm.wheels import BASE, ENGINES

DISTRIBUTION = "tinysam-edge"
NAME = "tinysam-edge-runtime"
MAX_BYTES = 200_000
"""A larger wheel holds something that does not belong into it."""
TIME_S = 315532800
"""1980-01-01, the earliest time in a zip file: given to every file, so that the bytes depend on the contents only."""
SETUP = """\
[metadata]
name = {name}
version = {version}
description = The runtime of TinySAM Edge: numpy, Pillow and one inference engine
license = Apache-2.0

[options]
python_requires = >=3.10
packages =
{packages}
package_dir =
    tinysam.runtime = runtime
install_requires =
{base}

[options.package_data]
tinysam.runtime = py.typed

[options.extras_require]
{engines}

[options.entry_points]
console_scripts =
    tinysam-run = tinysam.runtime.cli:main
"""


class BuildError(RuntimeError):
    """A part of a bundle could not be made; the message says which and why."""


def build_wheel(folder: Path) -> Path:
    """Build the wheel into `folder` from the sources that this Python imports; returns its path.

    Raises:
        BuildError: the build failed, or the wheel is larger than `MAX_BYTES`.
    """
    sources = Path(tinysam.runtime.__file__).parent
    with tempfile.TemporaryDirectory() as work:
        project = Path(work)
        shutil.copytree(sources, project / "runtime", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        packages = sorted(path.parent.relative_to(project) for path in (project / "runtime").rglob("__init__.py"))
        text = SETUP.format(
            name=NAME,
            version=version(DISTRIBUTION),
            packages=_lines(f"tinysam.{'.'.join(path.parts)}" for path in packages),
            base=_lines(BASE),
            engines="\n".join(f"{engine} = {requirement}" for engine, requirement in ENGINES.items()),
        )
        (project / "setup.cfg").write_text(text)
        (project / "setup.py").write_text("from setuptools import setup\n\nsetup()\n")
        _pip_wheel(project, project / "out")
        (built,) = (project / "out").glob("*.whl")
        if built.stat().st_size > MAX_BYTES:
            raise BuildError(
                f"{built.name} has {built.stat().st_size} bytes, more than {MAX_BYTES}: not a thin runtime"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(built, folder / built.name))


def _lines(values: Iterable[str]) -> str:
    return "\n".join(f"    {value}" for value in values)


def _pip_wheel(project: Path, out: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(project)]
    if find_spec("setuptools"):
        command.insert(4, "--no-build-isolation")
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(TIME_S)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["pip failed"]
        raise BuildError(f"cannot build the runtime wheel: {lines[-1]}")
