"""Cleaning of masks, against scikit-image's connected components."""

from pathlib import Path

import numpy as np
import pytest
from skimage.measure import label

from tests.runtime import disc_model
from tinysam.runtime import Segmenter
from tinysam.runtime.geometry import Frame
from tinysam.runtime.manifest import Cleaning
from tinysam.runtime.masks.clean import clean_mask, clean_masks

SIZE = (40, 48)


def expected(mask: np.ndarray, islands: float, holes: float) -> np.ndarray:
    """The same by scikit-image: holes do not touch the border, the largest island stays."""
    area = mask.sum()
    background = label(~mask, connectivity=1)
    border = np.unique(np.concatenate([background[0], background[-1], background[:, 0], background[:, -1]]))
    filled = mask.copy()
    for part in np.setdiff1d(np.unique(background), [0, *border]):
        if (background == part).sum() < holes * area:
            filled[background == part] = True
    parts = label(filled, connectivity=1)
    sizes = np.bincount(parts.ravel())[1:]
    for part in np.flatnonzero(sizes < islands * area):
        if part != sizes.argmax():
            filled[parts == part + 1] = False
    return filled


@pytest.mark.parametrize("seed", range(12))
def test_cleaning_is_what_connected_components_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((6, 6)) + 0.3
    smooth = np.kron(noise, np.ones((8, 8))).astype(np.float32) + rng.standard_normal((48, 48)).astype(np.float32)
    cleaned = clean_mask(smooth, Cleaning(islands=0.03, holes=0.02), SIZE)
    seen = smooth[: SIZE[0], : SIZE[1]] > 0
    np.testing.assert_array_equal(cleaned[: SIZE[0], : SIZE[1]] > 0, expected(seen, 0.03, 0.02))
    np.testing.assert_array_equal(cleaned[SIZE[0] :], smooth[SIZE[0] :])
    assert not np.shares_memory(cleaned, smooth)


def test_nothing_is_done_if_the_shares_are_zero_or_nothing_is_small() -> None:
    logits = np.full((8, 8), -3, np.float32)
    logits[2:5, 2:5] = 3
    for cleaning in (Cleaning(), Cleaning(0.5, 0.5)):
        assert clean_mask(logits, cleaning, (8, 8)) is logits
        both = np.stack([logits, logits])
        assert clean_masks(both, cleaning, (8, 8)) is both
    empty = np.full((8, 8), -3, np.float32)
    assert clean_mask(empty, Cleaning(0.5, 0.5), (8, 8)) is empty


def test_no_outline_is_left_where_a_speck_or_a_pinhole_was() -> None:
    logits = np.full((16, 16), -4, np.float32)
    logits[2:10, 2:10] = 4
    logits[5, 5] = 0  # a hole whose logit has no sign
    logits[13, 13] = 2
    frame = Frame((200, 200), 64)
    masks = frame.upscaler.masks(clean_mask(logits, Cleaning(0.05, 0.05), frame.low_res_size))
    assert label(masks, connectivity=2).max() == label(~masks, connectivity=2).max() == 1
    assert label(frame.upscaler.masks(logits)).max() == 2


def test_what_touches_at_a_corner_only_is_no_part_of_the_rest() -> None:
    logits = np.full((16, 16), -6, np.float32)
    logits[2:10, 2:10] = 6
    logits[1, 1] = 4
    logits[9, 9], logits[8, 8] = -6, -4  # outside and a hole
    frame = Frame((200, 200), 64)
    raw = frame.upscaler.masks(logits)
    masks = frame.upscaler.masks(clean_mask(logits, Cleaning(0.05, 0.05), frame.low_res_size))
    assert label(raw, connectivity=2).max() == label(~raw, connectivity=2).max() == 2
    assert label(masks, connectivity=2).max() == label(~masks, connectivity=2).max() == 1


def test_predict_cleans_only_if_it_is_asked_to(tmp_path: Path) -> None:
    segmenter = Segmenter(disc_model.build(tmp_path, cleaning=Cleaning(0.1, 0.1)), precision="fp32", threads=1)
    segmenter.set_image(np.full((64, 64, 3), 118, np.uint8))
    speck = np.zeros((1, 16, 16), np.float32)
    speck[0, 1, 1] = 60
    exact = segmenter.predict([[40, 40]], [1], mask_input=speck)
    cleaned = segmenter.predict([[40, 40]], [1], mask_input=speck, clean=True)
    assert exact.masks[2, 6, 6] and not cleaned.masks[2, 6, 6]
    np.testing.assert_array_equal(cleaned.masks[2, 15:], exact.masks[2, 15:])
