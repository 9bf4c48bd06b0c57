"""The wheel: every package of this checkout without the training weights, and a model inside that segments at once.

`python -m tinysam.device.bundle.wheel dist --model artifacts/nano-448` builds it.
"""

from __future__ import annotations

import argparse
import configparser
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tinysam.device.bundle.contents import copy_model
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.locate import PACKAGED, find_artifacts
from tinysam.runtime.manifest import read_manifest

PROJECT = Path(__file__).resolve().parents[2]
"""The checkout; of an installed package it is a folder without setup.cfg."""
FILES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.safetensors", PACKAGED)
"""Devices run exported models, not the weights that they were made from (11 MB)."""
MAX_BYTES = 600_000
"""A larger wheel without a model holds something that does not belong into it."""
TIME_S = 315532800
"""1980-01-01, the earliest time in a zip file: given to every file, so that the bytes depend on the contents only."""


class BuildError(RuntimeError):
    """A part of a bundle could not be made; the message says which and why."""


def project_version() -> str:
    """The version that setup.cfg states; every other place reads it from there or from what was installed.

    Raises:
        BuildError: not in a source checkout.
    """
    return _setup()["metadata"]["version"]


def build_wheel(folder: Path, model: Path | None = None) -> Path:
    """Build `tinysam_edge-VERSION-py3-none-any.whl` into `folder`; returns its path.

    Args:
        folder: made if absent; a wheel of the same name is replaced.
        model: artifact folder whose INT8 files for both engines go inside, where `find_artifacts` looks last.

    Raises:
        BuildError: not in a source checkout, the build failed, or the code alone is larger than `MAX_BYTES`.
        FileNotFoundError, ArtifactError: the model cannot be used.
    """
    folders = [line.split("=")[1].strip() for line in _setup()["options"]["package_dir"].split("\n") if line]
    with tempfile.TemporaryDirectory() as work:
        project = Path(work)
        for name in FILES:
            shutil.copyfile(PROJECT / name, project / name)
        for name in folders:
            shutil.copytree(PROJECT / name, project / name, ignore=LEFT_OUT)
        if model is not None:
            manifest = read_manifest(model)
            inside = project / "runtime" / PACKAGED / f"{manifest.variant}-{manifest.image_size}"
            copy_model(model, inside, tuple(FORMATS), ("int8",))
        built = _pip_wheel(project, project / "out")
        if model is None and built.stat().st_size > MAX_BYTES:
            raise BuildError(f"{built.name} has {built.stat().st_size} bytes, more than {MAX_BYTES}: not code alone")
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(built, folder / built.name))


def _setup() -> configparser.ConfigParser:
    path = PROJECT / "setup.cfg"
    if not path.is_file():
        raise BuildError(f"the wheel is built from a source checkout; there is none at {PROJECT}")
    setup = configparser.ConfigParser()
    setup.read(path, encoding="utf-8")
    return setup


def _pip_wheel(project: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(project)]
    if find_spec("setuptools"):
        command.insert(4, "--no-build-isolation")
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(TIME_S)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["pip failed"]
        raise BuildError(f"cannot build the wheel: {lines[-1]}")
    (built,) = out.glob("*.whl")
    return built


def main(arguments: list[str] | None = None) -> int:
    """Parse, build, print the wheel's path; errors are one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tinysam.device.bundle.wheel", description="Build the wheel with a model inside."
    )
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument(
        "--model", metavar="DIR", help="artifact folder, or none for no model inside (default: as tinysam-run finds it)"
    )
    options = parser.parse_args(arguments)
    try:
        built = build_wheel(options.out, None if options.model == "none" else find_artifacts(options.model))
    except (ValueError, BuildError, OSError) as error:
        print(f"wheel: {error}", file=sys.stderr)
        return 1
    print(f"{built} ({built.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
