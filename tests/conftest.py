"""Fixtures that several folders share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tinysam.datasets.coco import Photo

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Optimized graphs are kept in a folder of this run, also by the commands that tests start."""
    before = os.environ.get("TINYSAM_CACHE")
    os.environ["TINYSAM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["TINYSAM_CACHE"]
    if before is not None:
        os.environ["TINYSAM_CACHE"] = before


@pytest.fixture(scope="session")
def artifacts_dir() -> Path:
    """The real artifacts of `nano`, as `make export-int8` writes them; exported first if they are out of date.

    TINYSAM_MODEL names others, which are taken as they are.
    """
    if os.environ.get("TINYSAM_MODEL"):
        return Path(os.environ["TINYSAM_MODEL"]).resolve()
    from tinysam.export.pipeline import export
    from tinysam.export.settings import ExportSettings
    from tinysam.models.variants import get_variant

    variant = get_variant("nano")
    settings = ExportSettings(
        variant=variant,
        checkpoint=None,
        image_size=variant.image_size,
        precisions=("fp32", "int8"),
        formats=("onnx", "tflite"),
        target="arm",
        calib=None,
        calib_count=32,
        out=REPOSITORY / "artifacts",
    )
    export(settings)
    return settings.folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Outputs of the official code over deterministic parameters."""
    path = SHARED / "golden"
    if not path.is_dir():
        pytest.skip(f"no golden outputs at {path}")
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch computes with one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A COCO-format set of four drawn pictures."""
    from tests.datasets.drawing import draw

    draw(tmp_path / "drawn", 4)
    return tmp_path / "drawn"


@pytest.fixture
def photos(drawn: Path) -> "list[Photo]":
    """Its photographs."""
    from tinysam.datasets.coco import read_coco

    return read_coco(drawn)
