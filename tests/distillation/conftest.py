import pytest

from tinysam.distillation.recipe import Recipe


@pytest.fixture(autouse=True)
def alone(one_thread: None) -> None:
    """Every test here computes with one thread."""


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(image_size=224, batch=2, prompts=2, steps=3, decay_steps=1, warmup=1, rounds=1.0, max_rounds=2)
