"""`Segmenter` on the disc model, whose masks are known by hand."""

import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runtime import disc_model
from tests.runtime.conftest import picture
from tinysam.runtime import ArtifactError, ImageError, OrderError, PromptError, Segmenter
from tinysam.runtime.locate import find_artifacts
from tinysam.runtime.manifest import sealed
from tinysam.runtime.mask_choice import select_masks
from tinysam.runtime.prompts import Prompts

GREY = np.full((40, 80, 3), 118, np.uint8)
"""An image whose normalized mean is near 0: discs have their nominal radii. The model's input is 32 high, 64 wide."""


@pytest.fixture
def ready(segmenter: Segmenter) -> Segmenter:
    segmenter.set_image(GREY)
    return segmenter


def disc(x: float, y: float, radius: float, size: tuple[int, int] = (40, 80)) -> np.ndarray:
    """Pixels of an image of `size` (height, width) whose centre lies within `radius` of (x, y)."""
    row, column = np.mgrid[: size[0], : size[1]] + 0.5
    return np.hypot(column - x, row - y) < radius


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_point_gives_three_masks_where_it_was_set(ready: Segmenter) -> None:
    masks, iou, low_res = ready.predict(point_coords=[[30, 20]], point_labels=[1])
    assert (masks.shape, masks.dtype) == ((3, 40, 80), np.bool_)
    assert (low_res.shape, low_res.dtype) == ((3, 16, 16), np.float32)
    # 80 pixels of the photograph are 64 of the model: x is 30 * 0.8, radii grow by 1.25
    np.testing.assert_allclose(iou, np.array(disc_model.IOUS) - 0.024, atol=1e-6)
    for mask, radius in zip(masks, disc_model.RADII, strict=True):
        assert overlap(mask, disc(30, 20, radius * 1.25)) > 0.9


def test_box_is_centred_and_single_mask_is_the_best(ready: Segmenter) -> None:
    masks, iou, low_res = ready.predict(box=[10, 10, 50, 30], multimask_output=False)
    assert masks.shape == (1, 40, 80)
    assert low_res.shape == (1, 16, 16)
    assert iou == pytest.approx([max(disc_model.IOUS) - 0.024])
    assert overlap(masks[0], disc(30, 20, disc_model.RADII[1] * 1.25)) > 0.9


def test_single_mask_output_is_token_0_where_the_model_has_it(tmp_path: Path) -> None:
    segmenter = Segmenter(disc_model.build(tmp_path, mask_tokens=(0, 1, 2, 3)), precision="fp32", threads=1)
    segmenter.set_image(GREY)
    radii = (*disc_model.RADII, disc_model.RADII[0])  # np.resize in the model repeats the first
    single = segmenter.predict(point_coords=[[40, 20]], point_labels=[1], multimask_output=False)
    three = segmenter.predict(point_coords=[[40, 20]], point_labels=[1])
    assert overlap(single.masks[0], disc(40, 20, radii[0] * 1.25)) > 0.9
    for mask, radius in zip(three.masks, radii[1:], strict=True):
        assert overlap(mask, disc(40, 20, radius * 1.25)) > 0.88


def test_logits_cut_at_zero_are_the_masks(ready: Segmenter) -> None:
    arguments: dict[str, Any] = {"point_coords": [[30, 20], [40, 22]], "point_labels": [1, 0]}
    logits = ready.predict(**arguments, return_logits=True).masks
    assert (logits.shape, logits.dtype) == ((3, 40, 80), np.float32)
    np.testing.assert_array_equal(ready.predict(**arguments).masks, logits > 0)


def test_mask_input_changes_the_result(ready: Segmenter) -> None:
    first = ready.predict(point_coords=[[30, 20]], point_labels=[1])
    second = ready.predict([[30, 20]], [1], mask_input=first.low_res_masks[:1], multimask_output=True)
    np.testing.assert_allclose(second.low_res_masks, first.low_res_masks + first.low_res_masks[0], rtol=1e-5)
    alone = ready.predict(mask_input=first.low_res_masks[:1])
    assert alone.masks.shape == (3, 40, 80)


def test_a_box_goes_in_as_a_filled_mask_where_the_model_was_trained_so(ready: Segmenter, tmp_path: Path) -> None:
    folder = disc_model.build(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(sealed(manifest | {"box_masks": True}))
    trained_so = Segmenter(folder, precision="fp32", threads=1)
    trained_so.set_image(GREY)
    # 80 pixels of the photograph are 16 low-res cells: cells 2 to 5 across and 1.5 to 4 down are inside
    box = [10, 7.5, 30, 20]
    filled = np.full((16, 16), -8.0)
    filled[2:4, 2:6] = 8.0
    filled[1, 2:6] = 0.0
    found, plain = trained_so.predict(box=box).low_res_masks, ready.predict(box=box).low_res_masks
    np.testing.assert_allclose(found - plain, np.broadcast_to(filled, (3, 16, 16)), atol=1e-5)
    given = np.full((1, 16, 16), 3.0, np.float32)
    for arguments in ({"box": box, "mask_input": given}, {"point_coords": [[30, 20]], "point_labels": [1]}):
        np.testing.assert_array_equal(
            trained_so.predict(**arguments).low_res_masks, ready.predict(**arguments).low_res_masks
        )


def test_batch_equals_one_by_one(ready: Segmenter) -> None:
    boxes = np.array([[0, 0, 20, 20], [30, 5, 70, 35], [60, 10, 80, 40]], np.float64)
    points = boxes.reshape(3, 2, 2)[:, :1] + 5
    batch = ready.predict_batch(points, np.ones((3, 1)), boxes)
    assert batch.masks.shape == (3, 3, 40, 80)
    for index in range(3):
        single = ready.predict(points[index], [1], boxes[index])
        np.testing.assert_array_equal(batch.masks[index], single.masks)
        np.testing.assert_allclose(batch.iou_predictions[index], single.iou_predictions, rtol=1e-6)
    prior = np.stack([batch.low_res_masks[index, :1] for index in range(3)])
    refined = ready.predict_batch(points, np.ones((3, 1)), boxes, mask_input=prior)
    assert refined.masks.shape == batch.masks.shape
    one = ready.predict(points[2], [1], boxes[2], mask_input=prior[2])
    np.testing.assert_allclose(refined.low_res_masks[2], one.low_res_masks, rtol=1e-6)


def test_bgr_and_pil_images_mean_the_same(segmenter: Segmenter) -> None:
    rgb = np.asarray(picture())
    embeddings = []
    for image, order in ((rgb, "RGB"), (rgb[..., ::-1], "BGR"), (Image.fromarray(rgb), "RGB")):
        segmenter.set_image(image, order)
        embeddings.append(segmenter.get_image_embedding())
    assert embeddings[0].shape == (1, 256, disc_model.GRID, disc_model.GRID)
    np.testing.assert_array_equal(embeddings[0], embeddings[1])
    np.testing.assert_array_equal(embeddings[0], embeddings[2])


def test_normalization_by_hand(segmenter: Segmenter) -> None:
    white = np.full((32, 64, 3), 255, np.uint8)
    segmenter.set_image(white)
    # half of the square is padding of zeros; the disc model's embedding is the mean of everything
    expected = np.mean([(255 - m) / s for m, s in zip(disc_model.MEAN, disc_model.STD, strict=True)]) / 2
    np.testing.assert_allclose(segmenter.get_image_embedding(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.predict(point_coords=[[1, 1]], point_labels=[1]),
        lambda s: s.predict_batch(boxes=[[0, 0, 5, 5]]),
        lambda s: s.get_image_embedding(),
        lambda s: s.features,
    ],
)
def test_wrong_order_names_the_missing_call(segmenter: Segmenter, call: Any) -> None:
    with pytest.raises(OrderError, match=r"call set_image\(image\) first"):
        call(segmenter)
    segmenter.set_image(GREY)
    call(segmenter)
    segmenter.reset_image()
    assert not segmenter.is_image_set
    with pytest.raises(OrderError):
        call(segmenter)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no prompt"),
        (
            {"point_coords": [[81, 3]], "point_labels": [1]},
            "point (81, 3) lies outside the image: expected x from 0 to 80",
        ),
        ({"point_coords": [[-1, 3]], "point_labels": [1]}, "lies outside"),
        ({"point_coords": [[float("nan"), 3]], "point_labels": [1]}, "finite"),
        ({"point_coords": [[1, 3]], "point_labels": [2]}, "label 2"),
        ({"point_coords": [[1, 3]]}, "without point_labels"),
        ({"point_labels": [1], "box": [0, 0, 4, 4]}, "without point_coords"),
        ({"point_coords": [1, 3], "point_labels": [1]}, "point_coords has shape"),
        ({"point_coords": [[1, 3]], "point_labels": [1, 0]}, "point_labels has shape (1, 2), expected (1, 1)"),
        ({"point_coords": [["a", 3]], "point_labels": [1]}, "not an array of numbers"),
        ({"box": [10, 5, 10, 9]}, "box (10, 5, 10, 9): x1 must exceed x0"),
        ({"box": [10, 5, 12, 5]}, "y1 must exceed y0"),
        ({"box": [90, 5, 99, 9]}, "lies outside the image, which is 80 wide and 40 high"),
        ({"box": [-9, 5, 0, 9]}, "lies outside the image"),
        ({"box": [5, -9, 9, 0]}, "lies outside the image"),
        ({"box": [5, 40, 9, 50]}, "lies outside the image"),
        ({"box": [0, 0, float("inf"), 9]}, "four finite numbers"),
        ({"box": [0, 0, 9]}, "box has shape (1, 3)"),
        ({"mask_input": np.zeros((1, 8, 8))}, "mask_input has shape (1, 1, 8, 8)"),
        ({"mask_input": np.full((1, 16, 16), np.nan)}, "NaN"),
    ],
)
def test_prompt_that_makes_no_sense_is_named(ready: Segmenter, arguments: Any, message: str) -> None:
    with pytest.raises(PromptError, match=re.escape(message)):
        ready.predict(**arguments)


def test_box_beyond_the_border_is_cut_off(ready: Segmenter) -> None:
    np.testing.assert_array_equal(
        ready.predict(box=[-20, -5, 40, 60]).low_res_masks, ready.predict(box=[0, 0, 40, 40]).low_res_masks
    )


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.complex64), "dtype complex64"),
        (np.zeros((3, 40, 40), np.uint8), "shape (3, 40, 40)"),
        (np.zeros((0, 4, 3), np.uint8), "shape (0, 4, 3)"),
        ("photo.jpg", "dtype"),
    ],
)
def test_what_is_not_an_image_is_named(segmenter: Segmenter, image: Any, message: str) -> None:
    with pytest.raises(ImageError, match=re.escape(message)):
        segmenter.set_image(image)
    with pytest.raises(ValueError, match="'GBR', expected one of RGB, BGR"):
        segmenter.set_image(GREY, "GBR")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "torch"}, "backend is 'torch', expected one of onnx, tflite"),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_unknown_choices_are_refused(disc_artifacts: Path, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Segmenter(disc_artifacts, **arguments)


def test_failed_set_image_leaves_no_old_image(ready: Segmenter) -> None:
    with pytest.raises(ImageError):
        ready.set_image(np.zeros((3, 40, 40)))
    assert not ready.is_image_set


def test_clones_in_threads_do_not_disturb_each_other(segmenter: Segmenter) -> None:
    """Eight threads, each with its own image and clone, get what one thread alone gets."""
    images = [np.asarray(picture(50 + index, 40, seed=index)) for index in range(8)]

    def answer(own: Segmenter, image: np.ndarray) -> np.ndarray:
        own.set_image(image)
        return own.predict(point_coords=[[20, 20]], point_labels=[1], return_logits=True).masks

    expected = [answer(segmenter, image) for image in images]
    found: dict[int, list[np.ndarray]] = {}
    start = threading.Barrier(len(images))

    def work(index: int) -> None:
        own = segmenter.clone()
        start.wait()
        found[index] = [answer(own, images[index]) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, answers in found.items():
        for one in answers:
            np.testing.assert_array_equal(one, expected[index])
    assert len(found) == len(images)


def test_select_masks_takes_the_best_of_three_for_each_prompt() -> None:
    masks = np.arange(2 * 3 * 4).reshape(2, 3, 2, 2).astype(np.float32)
    iou = np.array([[0.1, 0.9, 0.2], [0.8, 0.3, 0.7]], np.float32)
    best, score = select_masks((1, 2, 3), masks, iou, multimask_output=False)
    np.testing.assert_array_equal(best[:, 0], [masks[0, 1], masks[1, 0]])
    np.testing.assert_array_equal(score[:, 0], np.float32([0.9, 0.8]))


def test_search_order_of_artifacts(disc_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYSAM_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    here = disc_model.build(tmp_path / "artifacts")
    assert find_artifacts() == here
    monkeypatch.setenv("TINYSAM_MODEL", str(disc_artifacts))
    assert find_artifacts() == disc_artifacts
    assert find_artifacts(here) == here
    assert find_artifacts(tmp_path / "artifacts") == here
    nano = tmp_path / "artifacts" / "nano-448"
    nano.mkdir()
    (nano / "manifest.json").write_text("{}")
    monkeypatch.delenv("TINYSAM_MODEL")
    assert find_artifacts() == nano
    with pytest.raises(FileNotFoundError, match="make export-int8"):
        find_artifacts(tmp_path / "nothing")


@pytest.mark.parametrize("mask_tokens", [(1, 2, 3), (0, 1, 2, 3)])
def test_masks_are_drawn_only_above_the_threshold(tmp_path: Path, mask_tokens: tuple[int, ...]) -> None:
    """The highest predicted IoU of a point falls with its x."""
    ready = Segmenter(disc_model.build(tmp_path, mask_tokens), precision="fp32", threads=1)
    ready.set_image(GREY)
    prompts = ready.prompts(np.array([[[10, 20]], [[40, 20]], [[20, 20]]]), np.ones((3, 1)))
    every, iou = ready.decode(prompts)
    limit = float(np.sort(iou.max(axis=1))[0])  # that of the point at 40
    found = ready.decode_above(prompts, limit)
    assert found.kept.tolist() == [0, 2]
    np.testing.assert_array_equal(found.iou, iou)
    np.testing.assert_allclose(found.masks, every[[0, 2]], rtol=1e-5)
    with_single = ready.decode_above(prompts, limit, single_mask=True).masks
    assert with_single.shape[1] == len(mask_tokens)
    np.testing.assert_array_equal(with_single[:, -3:], found.masks)
    nothing = ready.decode_above(prompts, 1.0)
    assert nothing.masks.shape == (0, *every.shape[1:])
    assert nothing.iou.shape == iou.shape


def test_predicted_iou_that_is_no_number_is_an_error(ready: Segmenter) -> None:
    nowhere = Prompts(np.full((1, 1, 2), np.nan, np.float32), np.ones((1, 1), np.float32))
    with pytest.raises(ArtifactError, match="predicted IoU is not a number"):
        ready.decode(nowhere)
