"""Prompts and IoU of the judgement on the emulated board; the board itself is in `make arm-half`."""

from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from tinysam.calibration.judge import mask_iou
from tinysam.device.arm.half import boxes_of, chosen, clicks_of, main
from tinysam.runtime.geometry import Frame
from tinysam.runtime.segmenter import Segmenter


def test_clicks_lie_on_a_grid_inside_the_photograph() -> None:
    prompts = clicks_of(Frame((100, 200), 448), 112)
    assert prompts.coords.shape == (9, 2, 2)
    np.testing.assert_allclose(prompts.coords[0, 0], [448 / 6, 224 / 6], rtol=1e-6)
    assert prompts.coords[:, 0, 1].max() < 224
    assert prompts.labels.tolist() == [[1, -1]] * 9
    assert prompts.ambiguous.all()


def test_boxes_enclose_masks_and_leave_out_empty_ones() -> None:
    frame, masks = Frame((40, 40), 40), np.zeros((2, 10, 10), bool)
    masks[0, 2:5, 3:9] = True
    prompts = boxes_of(frame, masks, fill=True)
    np.testing.assert_array_equal(prompts.coords, [[[12, 8], [36, 20]]])
    assert prompts.labels.tolist() == [[2, 3]]
    assert prompts.mask_input is not None
    np.testing.assert_array_equal(prompts.mask_input[0, 0] > 0, masks[0])
    assert len(boxes_of(frame, masks[1:], fill=False)) == 0


def test_the_masks_are_those_that_a_user_gets(artifacts_dir: Path) -> None:
    picture = Image.fromarray(skimage.data.astronaut())
    segmenter = Segmenter(artifacts_dir, precision="int8", backend="onnx")
    segmenter.set_image(picture)
    graphs = segmenter.graphs
    clicks = clicks_of(segmenter.frame, graphs.low_res_side)
    logits, iou = graphs.decode(segmenter.features, clicks)
    expected, _ = segmenter.decode(clicks, multimask_output=None)
    taken = chosen({"logits_0": logits, "iou_0": iou}, 0, clicks, graphs)
    np.testing.assert_array_equal(taken, expected[:, 0] > 0)
    assert not np.array_equal(taken, logits[:, 0] > 0)  # not always mask 0


def test_iou_by_hand() -> None:
    a = np.zeros((2, 2, 4), bool)
    b = a.copy()
    a[0, 0], b[0, :, :2] = True, True
    np.testing.assert_allclose(mask_iou(a, b), [2 / 6, 1])


def test_a_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tmp_path / "absent")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("arm-half: ")
