"""Upscaling against torch's own bilinear interpolation, done in SAM's two steps."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tinysam.runtime.geometry import Frame
from tinysam.runtime.upscale import Upscaler


def reference(low_res: np.ndarray, frame: Frame) -> np.ndarray:
    """SAM's `postprocess_masks`, (n, side, side) -> (n, height, width)."""
    torch = pytest.importorskip("torch")
    interpolate = torch.nn.functional.interpolate
    square = (frame.image_size, frame.image_size)
    large = interpolate(torch.from_numpy(low_res)[None], square, mode="bilinear", align_corners=False)
    height, width = frame.input_size
    cropped = large[..., :height, :width]
    result: np.ndarray = interpolate(cropped, frame.original_size, mode="bilinear", align_corners=False)[0].numpy()
    return result


def blobs(side: int, seed: int) -> np.ndarray:
    """Logits with some structure, (2, side, side)."""
    coarse = np.random.default_rng(seed).normal(size=(2, 5, 5)).astype(np.float32) * 8
    return np.stack([Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC) for one in coarse])


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 700), st.integers(1, 700)), st.sampled_from([64, 128, 448]), st.integers(0, 2**32 - 1))
@example((3000, 4000), 448, 0)
@example((1, 700), 64, 1)
def test_logits_and_masks_equal_torch(size: tuple[int, int], image_size: int, seed: int) -> None:
    frame = Frame(size, image_size)
    low_res = blobs(image_size // 4, seed)
    expected = reference(low_res, frame)
    np.testing.assert_allclose(frame.upscaler.logits(low_res), expected, atol=2e-4)
    # torch computes positions in float32; where the logit is nearly 0 either side may be right
    sure = np.abs(expected) > 2e-4
    masks = frame.upscaler.masks(low_res)
    np.testing.assert_array_equal(masks[sure], expected[sure] > 0)
    assert sure.mean() > 0.99


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(1, 300), st.integers(1, 300)), st.integers(0, 2**32 - 1))
def test_crop_of_extent_holds_the_whole_mask(size: tuple[int, int], seed: int) -> None:
    upscaler = Frame(size, 128).upscaler
    low_res = blobs(32, seed)[0] - 6
    mask = upscaler.masks(low_res)
    box = upscaler.extent(low_res)
    if box is None:
        assert not mask.any()
        return
    x0, y0, x1, y1 = box
    np.testing.assert_array_equal(upscaler.crop(box).masks(low_res), mask[y0:y1, x0:x1])
    assert mask.sum() == mask[y0:y1, x0:x1].sum()


def test_uniform_logits_fill_or_leave_everything() -> None:
    upscaler = Frame((123, 77), 64).upscaler
    assert upscaler.masks(np.full((16, 16), 1e-3, np.float32)).all()
    assert not upscaler.masks(np.zeros((16, 16), np.float32)).any()
    assert not upscaler.masks(np.full((16, 16), -1e-3, np.float32)).any()


def test_masks_equal_the_official_ones() -> None:
    golden = pytest.importorskip("tests.models.golden")
    arrays, (height, width, _) = golden.outputs("tinysam"), golden.photograph().shape
    expected = np.unpackbits(arrays["upscaled.masks"], axis=-1)[..., :width].astype(bool)
    assert expected.shape == (1, height, width)
    masks = Frame((height, width), golden.IMAGE_SIZE).upscaler.masks(arrays["upscaled.low_res"].astype(np.float32))
    # the stored low-res logits are rounded to 16 bits: only pixels on an outline may change side
    assert (masks != expected).mean() < 2e-3
    overlap = (masks & expected).sum(axis=(1, 2)) / (masks | expected).sum(axis=(1, 2))
    assert overlap.min() > 0.995


def test_through_model_is_a_weighted_mean() -> None:
    upscaler = Upscaler.through_model(16, 64, (40, 64), (400, 640))
    for matrix in (upscaler.rows, upscaler.columns):
        assert matrix.min() >= 0
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
        assert (matrix > 0).sum(axis=1).max() <= 3
