"""Fixtures of the runtime's tests."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime import disc_model
from tinysam.runtime import Segmenter

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def disc_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts of the model in `disc_model.py`."""
    return disc_model.build(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture
def segmenter(disc_artifacts: Path) -> Segmenter:
    return Segmenter(disc_artifacts, precision="fp32", threads=1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small colourful JPEG, 60 wide and 40 high."""
    path = tmp_path / "photo.jpg"
    picture().save(path, quality=95)
    return path


def picture(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """Smooth colours with an edge, the same for the same arguments."""
    noise = np.random.default_rng(seed).integers(0, 255, (4, 6, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def real_artifacts(artifacts_dir: Path) -> Path:
    """Artifacts of `nano` as the exporter writes them."""
    return artifacts_dir
