"""Where the artifacts of a model are looked for."""

import os
from collections.abc import Iterator
from pathlib import Path

from tinysam.runtime.manifest import FILE_NAME

ENVIRONMENT = "TINYSAM_MODEL"
"""Environment variable with the path of an artifact folder."""
DEFAULT_VARIANT = "nano"
PACKAGED = "model"
"""Folder of this package that holds the model of a wheel built with one."""


def find_artifacts(model: Path | str | None = None) -> Path:
    """The artifact folder to use: `model` if given, else the first that exists of

    1. the folder that the environment variable TINYSAM_MODEL names,
    2. `artifacts/*` in the current directory,
    3. `artifacts/*` beside the project's own source checkout,
    4. `tinysam/*` in the user's data directory (`$XDG_DATA_HOME`, or `~/.local/share`),
    5. the model inside the installed wheel, if it was built with one.

    Among several models in one place `nano` comes first, then the alphabet decides.

    Raises:
        FileNotFoundError: nothing was found; the message names the places.
    """
    if model is None:
        model = os.environ.get(ENVIRONMENT) or None
    if model is not None:
        return _given(Path(model))
    for place in places():
        for folder in _models(place):
            return folder
    searched = ", ".join(str(place) for place in places())
    raise FileNotFoundError(
        f"no model found: looked at ${ENVIRONMENT} and in {searched}; make one with `make export-int8` "
        "or name its folder with --model"
    )


def places() -> list[Path]:
    """The folders whose subfolders are searched, in order."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser())
    package = Path(__file__).resolve().parent
    found = [Path.cwd() / "artifacts", package.parent / "artifacts", data / "tinysam", package / PACKAGED]
    return list(dict.fromkeys(found))


def _given(folder: Path) -> Path:
    if (folder / FILE_NAME).is_file():
        return folder
    for inner in _models(folder):
        return inner
    raise FileNotFoundError(
        f"no model at {folder}: expected a folder with {FILE_NAME}, as `make export-int8` writes it"
    )


def _models(place: Path) -> Iterator[Path]:
    try:
        found = [path.parent for path in place.glob(f"*/{FILE_NAME}")]
    except OSError:
        return
    yield from sorted(found, key=lambda path: (not path.name.startswith(f"{DEFAULT_VARIANT}-"), path.name))
