"""Both engines on the exported `nano`, on a real photograph."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tinysam.runtime import Segmenter, read_manifest
from tinysam.runtime.manifest import ENGINES, PRECISIONS

data = pytest.importorskip("skimage.data")

BOX = [60.0, 40.0, 380.0, 290.0]
"""Around the cat of `skimage.data.cat()`."""


def available(folder: Path) -> list[tuple[str, str]]:
    have = {(file.engine, file.precision) for file in read_manifest(folder).files}
    return [(engine, precision) for engine in ENGINES for precision in PRECISIONS if (engine, precision) in have]


@pytest.fixture(scope="module")
def segmenters(real_artifacts: Path) -> dict[tuple[str, str], Segmenter]:
    loaded = {pair: Segmenter(real_artifacts, *pair, threads=2) for pair in available(real_artifacts)}
    for segmenter in loaded.values():
        segmenter.set_image(data.cat())
    return loaded


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_engines_agree(segmenters: dict[tuple[str, str], Segmenter]) -> None:
    reference = segmenters["onnx", "fp32"].predict(box=BOX)
    assert 0.05 < reference.masks.mean() < 0.9
    for (_, precision), segmenter in segmenters.items():
        found = segmenter.predict(box=BOX)
        assert found.masks.shape == (3, *data.cat().shape[:2])
        exact = precision == "fp32"
        np.testing.assert_allclose(found.iou_predictions, reference.iou_predictions, atol=1e-4 if exact else 0.03)
        for mask, expected in zip(found.masks, reference.masks, strict=True):
            assert overlap(mask, expected) > (0.999 if exact else 0.95)


def test_embedding_has_one_layout_whatever_the_engine(segmenters: dict[tuple[str, str], Segmenter]) -> None:
    reference = segmenters["onnx", "fp32"].get_image_embedding()
    assert reference.shape == (1, 256, 28, 28)
    if ("tflite", "fp32") in segmenters:
        found = segmenters["tflite", "fp32"].get_image_embedding()
        assert np.linalg.norm(found - reference) < 1e-3 * np.linalg.norm(reference)


@pytest.mark.parametrize("engine", ENGINES)
def test_mixed_is_the_int8_encoder_with_the_float_decoder(
    real_artifacts: Path, segmenters: dict[tuple[str, str], Segmenter], engine: str
) -> None:
    if not {(engine, "int8"), (engine, "fp32")} <= set(segmenters):
        pytest.skip(f"no {engine} files of both precisions")
    mixed = Segmenter(real_artifacts, engine, "mixed", threads=2)
    mixed.set_image(data.cat())
    embedding = mixed.get_image_embedding()
    np.testing.assert_array_equal(embedding, segmenters[engine, "int8"].get_image_embedding())
    prompts = mixed.prompts(boxes=np.array([BOX]))
    own = mixed.graphs.encode(mixed.graphs.encoder_input(np.zeros((448, 448, 3), np.uint8)))
    for found, expected in zip(
        mixed.graphs.decode(own, prompts), segmenters[engine, "fp32"].graphs.decode(own, prompts), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("points", [1, 2, 3, 5])
def test_padding_of_fixed_shapes_does_not_change_the_result(
    segmenters: dict[tuple[str, str], Segmenter], points: int
) -> None:
    """LiteRT's decoder has fixed numbers of prompts and points; free slots must count for nothing."""
    if ("tflite", "fp32") not in segmenters:
        pytest.skip("the artifacts hold no tflite fp32 files")
    rng = np.random.default_rng(points)
    coords = rng.uniform([80, 60], [360, 260], (3, points, 2))
    labels = rng.integers(0, 2, (3, points))
    ours, theirs = (
        segmenters[engine, "fp32"].predict_batch(coords, labels, return_logits=True) for engine in ("tflite", "onnx")
    )
    np.testing.assert_allclose(ours.iou_predictions, theirs.iou_predictions, atol=1e-4)
    scale = np.abs(theirs.low_res_masks).max()
    np.testing.assert_allclose(ours.low_res_masks, theirs.low_res_masks, atol=1e-3 * scale)


def test_masks_above_a_threshold_are_those_of_all_masks(segmenters: dict[tuple[str, str], Segmenter]) -> None:
    """ONNX leaves masks out inside the graph, LiteRT calls its second half for fewer prompts.

    LiteRT's first half multiplies with other numbers than its decoder in one call: INT8 rounds them elsewhere.
    """
    points = np.random.default_rng(0).uniform([20, 20], [430, 280], (9, 1, 2))
    for (engine, precision), segmenter in segmenters.items():
        prompts = segmenter.prompts(points, np.ones((9, 1)))
        masks, iou = segmenter.decode(prompts)
        best = np.sort(iou.max(axis=1))
        gap = 2 + int(np.diff(best[2:-2]).argmax())
        found = segmenter.decode_above(prompts, float(best[gap : gap + 2].mean()))
        assert found.kept.tolist() == np.flatnonzero(iou.max(axis=1) > best[gap]).tolist()
        if (engine, precision) == ("tflite", "int8"):
            np.testing.assert_allclose(found.iou, iou, atol=0.02)
            for mask, expected in zip(found.masks > 0, masks[found.kept] > 0, strict=True):
                assert overlap(mask, expected) > 0.95
        else:
            np.testing.assert_allclose(found.iou, iou, atol=1e-5)
            np.testing.assert_allclose(found.masks, masks[found.kept], atol=1e-3 * np.abs(masks).max())
        assert len(segmenter.decode_above(prompts, 9.0).masks) == 0


def test_too_many_points_for_a_fixed_decoder_say_so(segmenters: dict[tuple[str, str], Segmenter]) -> None:
    if ("tflite", "fp32") not in segmenters:
        pytest.skip("the artifacts hold no tflite fp32 files")
    points = np.full((200, 2), 50.0)
    with pytest.raises(ValueError, match="200 points in one prompt"):
        segmenters["tflite", "fp32"].predict(points, np.ones(200))
    assert segmenters["onnx", "fp32"].predict(points, np.ones(200)).masks.shape[0] == 3


def test_repeated_runs_are_identical(segmenters: dict[tuple[str, str], Segmenter]) -> None:
    for segmenter in segmenters.values():
        first = segmenter.predict(box=BOX, return_logits=True)
        segmenter.set_image(data.cat())
        again = segmenter.predict(box=BOX, return_logits=True)
        np.testing.assert_array_equal(first.masks, again.masks)


def test_mask_input_is_used(segmenters: dict[tuple[str, str], Segmenter]) -> None:
    for segmenter in segmenters.values():
        first = segmenter.predict(box=BOX)
        second = segmenter.predict(box=BOX, mask_input=first.low_res_masks[:1])
        assert not np.array_equal(first.low_res_masks, second.low_res_masks)


def test_clones_in_threads_share_an_engine_and_disturb_nobody(segmenters: dict[tuple[str, str], Segmenter]) -> None:
    """LiteRT has one set of buffers for all callers; whoever shares it has to wait, not to get another's masks."""
    images = [data.cat(), data.cat()[::-1].copy(), data.cat()[:, ::-1].copy()]
    for segmenter in segmenters.values():

        def answer(image: np.ndarray, shared: Segmenter = segmenter) -> list[np.ndarray]:
            own = shared.clone()
            own.set_image(image)
            return [own.predict(box=BOX).low_res_masks for _ in range(3)]

        alone = [answer(image)[0] for image in images]
        with ThreadPoolExecutor(len(images)) as pool:
            together = list(pool.map(answer, images))
        for expected, found in zip(alone, together, strict=True):
            for one in found:
                np.testing.assert_allclose(one, expected, atol=1e-4)
