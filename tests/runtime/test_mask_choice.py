"""Which mask a user gets: worked out by hand for each rule, and the same everywhere."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime import disc_model
from tinysam.runtime import Segmenter
from tinysam.runtime.mask_choice import choose_mask, is_ambiguous
from tinysam.runtime.objects import segment
from tinysam.runtime.prompts import ObjectPrompt

IOU = np.array([[0.99, 0.1, 0.5, 0.3], [0.2, 0.7, 0.6, 0.5]], np.float32)


@pytest.mark.parametrize(
    ("labels", "has_mask", "expected"),
    [
        ([1, -1], False, True),
        ([0, -1, -2], False, True),
        ([1, 1, -1], False, False),
        ([2, 3], False, False),
        ([1, 2, 3], False, False),
        ([-2], False, False),
        ([1, -1], True, False),
    ],
    ids=["click", "negative click", "two clicks", "box", "click and box", "none", "click and mask"],
)
def test_one_click_is_ambiguous_and_nothing_else(labels: list[int], has_mask: bool, expected: bool) -> None:
    assert is_ambiguous(np.array([labels]), has_mask).tolist() == [expected]


@pytest.mark.parametrize(
    ("rule", "tokens", "ambiguous", "expected"),
    [
        ("single", (0, 1, 2, 3), True, [2, 1]),
        ("single", (0, 1, 2, 3), False, [0, 0]),
        ("single", (3, 2, 1, 0), False, [3, 3]),
        ("best", (0, 1, 2, 3), False, [2, 1]),
        ("best", (1, 0, 2, 3), False, [0, 2]),
        ("single", (1, 2, 3, 3), False, [0, 1]),
        ("best", (0,), False, [0, 0]),
    ],
)
def test_the_choice_by_hand(rule: str, tokens: tuple[int, ...], ambiguous: bool, expected: list[int]) -> None:
    iou = IOU[:, : len(tokens)]
    assert choose_mask(rule, tokens, iou, np.full(2, ambiguous)).tolist() == expected


def test_stability_chooses_the_mask_that_a_threshold_changes_least() -> None:
    masks = np.full((1, 3, 4, 4), -5, np.float32)
    masks[0, 0, :2] = 0.5  # not above 1
    masks[0, 1, :2] = 5
    masks[0, 1, 2] = -0.5  # above -1
    masks[0, 2, 0, 0] = 5
    for ambiguous in (True, False):
        assert choose_mask("stability", (1, 2, 3), IOU[:1, :3], np.array([ambiguous]), masks).tolist() == [2]


def test_steady_prefers_the_clearer_outline_of_masks_that_promise_the_same() -> None:
    masks = np.full((1, 4, 4, 4), -5, np.float32)
    masks[0, 1, :2], masks[0, 1, 2] = 5, -0.5  # 8 of 12 pixels are sure
    masks[0, 2, :2], masks[0, 3, :2] = 5, 5
    iou = np.array([[0.1, 0.7, 0.6, 0.5]], np.float32)  # 0.7 * sqrt(8 / 12) = 0.57
    click, other = np.array([True]), np.array([False])
    assert choose_mask("steady", (0, 1, 2, 3), iou, click, masks).tolist() == [2]
    assert choose_mask("steady", (0, 1, 2, 3), iou, other, masks).tolist() == [0]
    iou[0, 1] = 0.8  # 0.65
    assert choose_mask("steady", (0, 1, 2, 3), iou, click, masks).tolist() == [1]
    assert choose_mask("steady", (1, 2, 3), iou[:, 1:], other, masks[:, 1:]).tolist() == [0]


def test_steady_leaves_mask_0_only_for_one_that_promises_more() -> None:
    masks, click = np.full((1, 4, 4, 4), 5, np.float32), np.array([True])
    iou = np.array([[0.6, 0.5, 0.63, 0.2]], np.float32)
    assert choose_mask("steady", (0, 1, 2, 3), iou, click, masks).tolist() == [0]
    iou[0, 2] = 0.67
    assert choose_mask("steady", (0, 1, 2, 3), iou, click, masks).tolist() == [2]
    masks[0, 0, 1:] = -0.5  # a quarter of mask 0 is sure
    iou[0, 2] = 0.4
    assert choose_mask("steady", (0, 1, 2, 3), iou, click, masks).tolist() == [1]


@pytest.mark.parametrize("rule", ["single", "best"])
def test_the_command_and_the_call_give_the_same_mask(tmp_path: Path, rule: str) -> None:
    """Discs of radius 6, 12, 20, 6 for tokens 0 to 3; predicted IoU 0.7, 0.9, 0.8, 0.7."""
    folder = disc_model.build(tmp_path, (0, 1, 2, 3), mask_choice=rule)
    segmenter = Segmenter(folder, precision="fp32", threads=1)
    image = Image.new("RGB", (64, 64), (118, 118, 118))
    for points, box, radius in (
        (((32.0, 32.0, 1),), None, 12),
        ((), (22.0, 22.0, 42.0, 42.0), 6 if rule == "single" else 12),
        (((30.0, 32.0, 1), (34.0, 32.0, 1)), None, 6 if rule == "single" else 12),
    ):
        (record,) = segment(segmenter, image, [ObjectPrompt(points, box)]).masks
        coords = [point[:2] for point in points] or None
        found = segmenter.predict(coords, [point[2] for point in points] or None, box, multimask_output=None)
        assert found.masks.shape == (1, 64, 64)
        np.testing.assert_array_equal(record.mask(), found.masks[0])
        assert record.predicted_iou == pytest.approx(found.iou_predictions[0])
        assert record.area == pytest.approx(np.pi * radius**2, rel=0.15)
