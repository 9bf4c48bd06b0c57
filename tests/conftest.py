"""Fixtures that several folders share."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def artifacts_dir() -> Path:
    """The real artifacts of `nano`, as `make export-int8` writes them; exported first if they are out of date."""
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
