"""Prompts and IoU of the judgement on the emulated board; the board itself is in `make arm-half`."""

from pathlib import Path

import numpy as np
import pytest

from tinysam.calibration.judge import mask_iou
from tinysam.device.arm.half import boxes_of, clicks_of, main
from tinysam.runtime.geometry import Frame


def test_clicks_lie_on_a_grid_inside_the_photograph() -> None:
    coords, labels = clicks_of(Frame((100, 200), 448))
    assert coords.shape == (9, 2, 2)
    np.testing.assert_allclose(coords[0, 0], [448 / 6, 224 / 6], rtol=1e-6)
    assert coords[:, 0, 1].max() < 224
    assert labels.tolist() == [[1, -1]] * 9


def test_boxes_enclose_masks_and_leave_out_empty_ones() -> None:
    masks = np.zeros((2, 10, 10), bool)
    masks[0, 2:5, 3:9] = True
    coords, labels = boxes_of(masks)
    np.testing.assert_array_equal(coords, [[[12, 8], [36, 20]]])
    assert labels.tolist() == [[2, 3]]
    assert boxes_of(masks[1:])[0].shape == (0, 2, 2)


def test_iou_by_hand() -> None:
    a = np.zeros((2, 2, 4), bool)
    b = a.copy()
    a[0, 0], b[0, :, :2] = True, True
    np.testing.assert_allclose(mask_iou(a, b), [2 / 6, 1])


def test_a_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tmp_path / "absent")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("arm-half: ")
