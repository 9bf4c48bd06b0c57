"""Emulated boards and a bundle made from the real artifacts."""

import os
import tarfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tinysam.device.arm.debian import DebianUnavailable
from tinysam.device.arm.emulator import Emulator, build_emulator
from tinysam.device.arm.root import Board, Release
from tinysam.device.arm.wheels import WheelsUnavailable
from tinysam.device.bundle.archive import Choice, build_bundle

CACHE = REPOSITORY / "build/arm"
MATRIX_PAGE = os.environ.get("ARM_MATRIX")
"""Page of docs/ for the table of the whole matrix; set by `make test-arm`."""


def emulator_or_skip(release: Release, board: Board, *, engines: bool = True) -> Emulator:
    """An emulator, or a skipped test where Debian's packages or the wheels cannot be had."""
    try:
        return build_emulator(release, board, CACHE, engines=engines)
    except (DebianUnavailable, WheelsUnavailable) as error:
        pytest.skip(str(error))


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a bundle; the path of its one folder."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="session")
def bundle(artifacts_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Raspberry Pi archive, INT8, both engines, without a wheelhouse."""
    return build_bundle(Choice("raspberrypi", artifacts_dir), tmp_path_factory.mktemp("dist"))
