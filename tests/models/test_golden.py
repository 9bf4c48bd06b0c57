"""Our models against outputs of the official code, on a public photograph (large arrays are float16, hence 1e-3)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from tests.models import golden
from tests.models.golden import reduce
from tinysam.models import VARIANTS, Sam, build
from tinysam.runtime.geometry import Frame

TOLERANCE = 1e-3
ENCODERS = ("tinysam", "edgesam", "repvitsam", "sam_vit_b")
POINT, POINTS, BOX, BOTH = "point", "two_points", "box", "box_and_point"
PROMPTS = {
    "tinysam": (POINT, POINTS, BOX, BOTH, "batch", "point_and_mask"),
    "edgesam": (POINT, POINTS, BOX),
    "repvitsam": (POINT, POINTS, BOX),
    "sam_vit_b": (),
}


class Case(NamedTuple):
    """A model, its embedding of the photograph, and what the official code said."""

    name: str
    sam: Sam
    embedding: torch.Tensor
    arrays: Any


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    """As the official outputs were made: random parameters amplify sums in another order to a difference of 0.005."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=ENCODERS)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    sam = golden.model(request.param)
    with torch.no_grad():
        yield Case(request.param, sam, sam.encode(golden.image()), golden.outputs(request.param))


@pytest.mark.parametrize("name", [*reduce.SEEDS])
def test_official_keys_and_shapes_are_ours(name: str) -> None:
    with torch.device("meta"):
        sam = build(VARIANTS[name])
    unused = sam.image_encoder.sizes.unused_keys
    official = {key: shape for key, shape in golden.official_shapes(name).items() if not key.startswith(unused)}
    assert {key: list(value.shape) for key, value in sam.state_dict().items()} == official


def test_embedding_equals_the_official_one(case: Case) -> None:
    assert golden.relative_error(case.embedding[0][golden.EMBEDDING], case.arrays["embedding"]) < TOLERANCE
    if "embedding_norm" in case.arrays:
        assert float(case.embedding.norm()) == pytest.approx(float(case.arrays["embedding_norm"]), rel=1e-5)


def test_masks_and_iou_equal_the_official_ones(case: Case) -> None:
    for name in PROMPTS[case.name]:
        mask = torch.from_numpy(case.arrays["mask_input"].astype(np.float32)) if "mask" in name else None
        decoded = case.sam.decode(case.embedding, *golden.prompt(case.arrays, name), mask)
        masks = decoded.low_res_masks[golden.LOW_RES]
        assert golden.relative_error(masks, case.arrays[f"{name}.low_res"]) < TOLERANCE, name
        assert golden.relative_error(decoded.iou, case.arrays[f"{name}.iou"]) < TOLERANCE, name


@pytest.fixture(scope="module")
def mobilesam() -> Case:
    sam = golden.model("mobilesam")
    with torch.no_grad():
        return Case("mobilesam", sam, sam.encode(golden.image()), golden.outputs("mobilesam"))


def ask(arrays: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A prompt that the official predictor got, in pixels of the photograph, as the model takes it."""
    frame = Frame(golden.photograph().shape[:2], golden.IMAGE_SIZE)
    coords, labels = [], []
    if f"{name}.point_coords" in arrays:
        coords.append(arrays[f"{name}.point_coords"])
        labels.append(arrays[f"{name}.point_labels"])
    if f"{name}.box" in arrays:
        coords.append(arrays[f"{name}.box"].reshape(2, 2))
        labels.append(np.array([2, 3]))
    else:
        coords.append(np.zeros((1, 2)))
        labels.append(np.array([-1]))
    moved = frame.to_model(np.concatenate(coords)).astype(np.float32)
    if f"{name}.box" not in arrays:
        moved[-1] = 0  # SAM's padding point has no place in the photograph
    return torch.from_numpy(moved)[None], torch.from_numpy(np.concatenate(labels).astype(np.float32))[None]


@pytest.mark.parametrize("name", ["point", "points", "box", "box_and_point"])
def test_predictor_of_mobilesam(mobilesam: Case, name: str) -> None:
    frame = Frame(golden.photograph().shape[:2], golden.IMAGE_SIZE)
    with torch.no_grad():
        decoded = mobilesam.sam.decode(mobilesam.embedding, *ask(mobilesam.arrays, name))
    for kind, tokens in (("multi", slice(1, 4)), ("single", slice(0, 1))):
        official = {key: mobilesam.arrays[f"{name}.{kind}.{key}"] for key in ("low_res", "iou", "masks")}
        low_res = decoded.low_res_masks[0, tokens]
        assert golden.relative_error(low_res[golden.LOW_RES], official["low_res"]) < TOLERANCE
        assert golden.relative_error(decoded.iou[0, tokens], official["iou"]) < TOLERANCE
        masks = frame.upscaler.masks(low_res.numpy())[golden.MASK_ROWS]
        expected = np.unpackbits(official["masks"], axis=-1)[..., : masks.shape[-1]].astype(bool)
        assert (masks != expected).mean() < 1e-3


def test_predictor_of_mobilesam_with_an_earlier_mask(mobilesam: Case) -> None:
    arrays, point = mobilesam.arrays, ask(mobilesam.arrays, "point")
    earlier = torch.from_numpy(arrays["point_and_mask.mask_input"])[None]
    with torch.no_grad():
        decoded = mobilesam.sam.decode(mobilesam.embedding, *point, earlier)
    low_res = decoded.low_res_masks[0, 1:][golden.LOW_RES]
    assert golden.relative_error(low_res, arrays["point_and_mask.low_res"]) < TOLERANCE
    assert golden.relative_error(decoded.iou[0, 1:], arrays["point_and_mask.iou"]) < TOLERANCE


def test_absent_points_change_nothing_but_other_points_do() -> None:
    """Absent slots have an attention weight of exactly 0, so masks are equal but for rounding.

    In float32 they differ by up to 6e-5 here: more slots make longer sums, which are rounded in another order, and
    these parameters amplify a rounding of 6e-8 a thousandfold. In double precision that is 1e-13, and a weight that
    leaks would stay what it is.
    """
    sam, arrays = golden.model("tinysam").double(), golden.outputs("tinysam")
    embedding = torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name in (POINTS, BOX):
        coords, labels = (tensor.double() for tensor in golden.prompt(arrays, name))
        more = torch.cat([coords, torch.full((1, 2, 2), 77.0)], dim=1)
        with torch.no_grad():
            plain = sam.decode(embedding, coords, labels).low_res_masks
            absent = sam.decode(embedding, more, torch.cat([labels, torch.full((1, 2), -2.0)], dim=1)).low_res_masks
            padding = sam.decode(embedding, more, torch.cat([labels, torch.full((1, 2), -1.0)], dim=1)).low_res_masks
        assert golden.relative_error(absent, plain) < 1e-11
        assert golden.relative_error(padding, plain) > 1e-2


@pytest.mark.parametrize("name", [*reduce.SEEDS])
def test_reduced_arrays_are_those_of_the_whole_outputs(golden_dir: Path, name: str) -> None:
    made, kept = reduce.reduced(golden_dir, name), golden.outputs(name)
    assert set(made) == set(kept.files)
    for key, values in made.items():
        np.testing.assert_array_equal(kept[key], values)
