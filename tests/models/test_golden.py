"""Our models against outputs of the official code (stored as float16, hence 1e-3)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import golden
from tinysam.models import VARIANTS, Sam, build, normalize

TOLERANCE = 1e-3
PROMPTS = ("point", "two_points", "box", "box_and_point", "batch", "point_and_mask")


@pytest.fixture(scope="module")
def arrays(golden_dir: Path) -> Any:
    return golden.outputs(golden_dir, "tinysam")


@pytest.fixture(scope="module")
def sam(golden_dir: Path) -> Sam:
    return golden.model(golden_dir, "tinysam")


@pytest.fixture(scope="module")
def image(arrays: Any) -> torch.Tensor:
    pixels = normalize(torch.from_numpy(arrays["resized"].astype(np.float32)).permute(2, 0, 1)[None])
    return torch.nn.functional.pad(pixels, (0, 1024 - pixels.shape[3], 0, 1024 - pixels.shape[2]))


@pytest.fixture(scope="module")
def embedding(sam: Sam, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return sam.encode(image)


def test_tinyvit_embedding_equals_the_official_one(embedding: torch.Tensor, arrays: Any) -> None:
    assert golden.relative_error(embedding[0], arrays["embedding"]) < TOLERANCE
    assert float(embedding.norm()) == pytest.approx(float(arrays["embedding_norm"]), rel=1e-5)


@pytest.mark.parametrize("name", PROMPTS)
def test_masks_and_iou_equal_the_official_ones(sam: Sam, embedding: torch.Tensor, arrays: Any, name: str) -> None:
    with torch.no_grad():
        decoded = sam.decode(embedding, *golden.prompt(arrays, name))
    assert golden.relative_error(decoded.low_res_masks, arrays[f"{name}.low_res"]) < TOLERANCE
    assert golden.relative_error(decoded.iou, arrays[f"{name}.iou"]) < TOLERANCE


def test_absent_points_change_nothing_but_other_points_do(sam: Sam, embedding: torch.Tensor, arrays: Any) -> None:
    coords, labels, _ = golden.prompt(arrays, "two_points")
    more = torch.cat([coords, torch.full((1, 2, 2), 77.0)], dim=1)
    with torch.no_grad():
        plain = sam.decode(embedding, coords, labels).low_res_masks
        absent = sam.decode(embedding, more, torch.cat([labels, torch.full((1, 2), -2.0)], dim=1)).low_res_masks
        padding = sam.decode(embedding, more, torch.cat([labels, torch.full((1, 2), -1.0)], dim=1)).low_res_masks
    assert golden.relative_error(absent, plain) < 1e-6
    assert golden.relative_error(padding, plain) > 1e-2


def test_vit_b_embedding_equals_the_official_one(golden_dir: Path, image: torch.Tensor) -> None:
    teacher = golden.model(golden_dir, "sam_vit_b")
    with torch.no_grad():
        embedding = teacher.encode(image)
    assert golden.relative_error(embedding[0], golden.outputs(golden_dir, "sam_vit_b")["embedding"]) < TOLERANCE


@pytest.mark.parametrize("name", ["sam_vit_l", "sam_vit_h"])
def test_large_teachers_have_the_official_keys_and_shapes(golden_dir: Path, name: str) -> None:
    import json

    expected = json.loads((golden_dir / f"{name}_state_dict.json").read_text())
    with torch.device("meta"):
        state = build(VARIANTS[name]).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == expected
