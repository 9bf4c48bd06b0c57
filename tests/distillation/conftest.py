from pathlib import Path

import pytest
import torch

from tests.evaluation.drawing import draw
from tinysam.distillation.recipe import Recipe
from tinysam.evaluation.coco import Photo, read_coco


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    draw(tmp_path / "drawn", 6)
    return tmp_path / "drawn"


@pytest.fixture
def photos(drawn: Path) -> list[Photo]:
    return read_coco(drawn)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(image_size=224, batch=2, prompts=2, steps=3, decay_steps=1, warmup=1, rounds=1.0, max_rounds=2)
