"""Whatever way a prompt comes in, the masks are the same: every combination through every way, with both engines."""

import copy
import itertools
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime import disc_model
from tinysam.runtime import PromptError, Segmenter
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.objects import segment
from tinysam.runtime.prompts import ObjectPrompt
from tinysam.runtime.sam import SamModel, SamPredictor

SIZE = (90, 120)
POINTS = {
    "none": None,
    "empty": np.zeros((0, 2)),
    "one": np.array([[40.0, 30.0]]),
    "three": np.array([[40, 30], [70, 50], [9, 80.0]]),
}
LABELS = {"none": None, "empty": np.zeros(0), "one": np.array([1]), "three": np.array([1, 1, 0])}
BOXES = {
    "none": None,
    "empty": np.zeros((0, 4)),
    "box": np.array([20.0, 10, 90, 70]),
    "over": np.array([-5, 40, 300, 80.0]),
}
MASKS = ("none", "mask")
COMBINATIONS = list(itertools.product(POINTS, BOXES, MASKS))


@pytest.fixture(scope="module", params=["disc", "onnx", "tflite"])
def ready(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SamPredictor:
    """Models that want boxes as filled masks: the disc model, and `nano` in both engines."""
    if request.param == "disc":
        folder = disc_model.build(tmp_path_factory.mktemp("disc"), (0, 1, 2, 3), box_masks=True, mask_choice="single")
        model = SamModel(folder, "onnx", "fp32", threads=1)
    else:
        model = SamModel(request.getfixturevalue("real_artifacts"), request.param, "fp32", threads=2)
    assert model.manifest.box_masks
    predictor = SamPredictor(model)
    predictor.set_image(image())
    return predictor


def image() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize(SIZE[::-1], Image.Resampling.NEAREST)


def logits(ready: SamPredictor) -> np.ndarray:
    side = ready.graphs.low_res_side
    return np.random.default_rng(1).normal(0, 3, (1, side, side)).astype(np.float32)


def batch(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else values[None]


@pytest.mark.parametrize(("points", "box", "mask"), COMBINATIONS, ids=["-".join(one) for one in COMBINATIONS])
def test_every_way_in_gives_the_same_masks(ready: SamPredictor, points: str, box: str, mask: str) -> None:
    coords, labels, corners = POINTS[points], LABELS[points], BOXES[box]
    prior = logits(ready) if mask == "mask" else None
    boxes = None if corners is None else corners.reshape(-1, 4) if len(corners) else None
    moved = None if coords is None else ready.transform.apply_coords(coords[None], SIZE)
    moved_boxes = None if boxes is None else ready.transform.apply_boxes(boxes, SIZE)
    ways = {
        "predict": lambda: ready.predict(coords, labels, corners, prior),
        "predict_batch": lambda: [
            part[0] for part in ready.predict_batch(batch(coords), batch(labels), boxes, batch(prior))
        ],
        "predict_torch": lambda: [
            part[0] for part in ready.predict_torch(moved, batch(labels), moved_boxes, batch(prior))
        ],
    }
    if points in ("none", "empty") and box in ("none", "empty") and prior is None:
        for way in ways.values():
            with pytest.raises(PromptError, match="no prompt: give points, a box or a mask"):
                way()
        return
    expected = ways["predict"]()
    assert expected[0].shape == (3, *SIZE)
    for name, way in ways.items():
        masks, iou, low_res = way()
        np.testing.assert_array_equal(masks, expected[0], err_msg=name)
        np.testing.assert_allclose(iou, expected[1], rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(low_res, expected[2], rtol=1e-3, atol=1e-3, err_msg=name)
    if prior is None:
        prompt = ObjectPrompt(
            tuple((x, y, int(label)) for (x, y), label in zip(coords, labels, strict=True))
            if coords is not None
            else (),
            None if boxes is None else tuple(corners),  # type: ignore[arg-type]
        )
        (record,) = segment(ready.clone(), image(), [prompt], clean=False).masks
        chosen = ready.predict(coords, labels, corners, multimask_output=None)
        np.testing.assert_array_equal(record.mask(), chosen.masks[0])


def test_zero_prompts_give_zero_masks(ready: SamPredictor) -> None:
    side = ready.graphs.low_res_side
    for multimask, count in ((True, 3), (False, 1), (None, 1)):
        for given in (
            {"boxes": np.zeros((0, 4))},
            {"point_coords": np.zeros((0, 1, 2)), "point_labels": np.zeros((0, 1))},
            {"point_coords": np.zeros((0, 1, 2)), "point_labels": np.zeros((0, 1)), "boxes": np.zeros((0, 4))},
            {"boxes": np.zeros((0, 4)), "mask_input": np.zeros((1, 1, side, side))},
        ):
            found = ready.predict_batch(**given, multimask_output=multimask)
            assert found.masks.shape == (0, count, *SIZE)
            assert found.low_res_masks.shape == (0, count, side, side)
            tensors = ready.predict_torch(
                given.get("point_coords"),
                given.get("point_labels"),
                given.get("boxes"),
                given.get("mask_input"),
                multimask,
            )
            assert [part.shape for part in tensors] == [part.shape for part in found]


@pytest.mark.parametrize("count", [8, 20, 30, 40])
def test_many_clicks_are_exact_or_refused_with_their_number(ready: SamPredictor, count: int) -> None:
    """LiteRT's decoder has 32 slots; more are masked out of attention, so filling them up changes nothing."""
    coords = np.random.default_rng(count).uniform(5, 85, (count, 2))
    labels = np.arange(count) % 2
    box = np.array([20, 10, 90, 70])
    if ready.graphs.backend == "tflite" and count > 31:
        with pytest.raises(PromptError, match=rf"{count} points in one prompt: .* takes 31 points, or 30 and a box"):
            ready.predict(coords, labels)
        with pytest.raises(PromptError, match=rf"{count} points and a box in one prompt"):
            ready.predict(coords, labels, box)
        return
    for given in (None, box):
        found = ready.predict(coords, labels, given)
        assert found.masks.shape == (3, *SIZE)
        if ready.graphs.backend == "tflite":
            exact = Segmenter(ready.graphs.folder, "onnx", "fp32", threads=2)
            exact.set_image(image())
            np.testing.assert_allclose(
                found.low_res_masks, exact.predict(coords, labels, given).low_res_masks, atol=0.02
            )


def test_copies_answer_as_the_original_without_loading_again(ready: SamPredictor) -> None:
    expected = ready.predict(box=BOXES["box"]).masks
    for other in (copy.copy(ready), copy.deepcopy(ready)):
        assert other.graphs is ready.graphs
        np.testing.assert_array_equal(other.predict(box=BOXES["box"]).masks, expected)
    other = pickle.loads(pickle.dumps(ready))
    assert isinstance(other.graphs, Graphs) and other.graphs is not ready.graphs
    assert other.model.graphs is other.graphs
    np.testing.assert_array_equal(other.predict(box=BOXES["box"]).masks, expected)
    assert len(pickle.dumps(other.model)) < 2000, "no graph travels"


def area(segmenter: Segmenter) -> int:
    """Pixels of the first mask of a click, in another process."""
    return int(segmenter.predict([[40, 30]], [1]).masks[0].sum())


def test_another_process_goes_on_with_the_image(tmp_path: Path) -> None:
    segmenter = Segmenter(disc_model.build(tmp_path), precision="fp32", threads=1)
    segmenter.set_image(image())
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(area, segmenter).result(timeout=120) == area(segmenter) > 0


def test_a_copy_without_an_image_stays_without(tmp_path: Path) -> None:
    segmenter = Segmenter(disc_model.build(tmp_path), precision="fp32")
    assert not pickle.loads(pickle.dumps(segmenter)).is_image_set
