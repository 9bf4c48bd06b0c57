"""The interfaces of `segment_anything`: names, shapes and meanings."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.conftest import picture
from tinysam.runtime import Segmenter
from tinysam.runtime.sam import (
    ResizeLongestSide,
    SamAutomaticMaskGenerator,
    SamHierarchicalMaskGenerator,
    SamPredictor,
    sam_model_registry,
)

IMAGE = np.asarray(picture(200, 150))


@pytest.fixture
def predictor(disc_artifacts: Path) -> SamPredictor:
    sam = sam_model_registry["vit_t"](checkpoint=disc_artifacts, precision="fp32", threads=1).to("cpu").eval()
    predictor = SamPredictor(sam)
    predictor.set_image(IMAGE)
    return predictor


def test_predict_gives_the_discs_that_the_model_draws(predictor: SamPredictor) -> None:
    """Discs of radius 6, 12 and 20 model pixels around the click; a model pixel is 200 / 64 of the photograph."""
    masks, scores, logits = predictor.predict(np.array([[100, 75]]), np.array([1]), multimask_output=True)
    radii = np.array([6, 12, 20]) * 200 / 64
    rows, columns = np.nonzero(masks[0])
    assert (rows.mean(), columns.mean()) == pytest.approx((75, 100), abs=1)
    np.testing.assert_allclose(masks.sum((1, 2)), np.pi * radii**2, rtol=0.08)
    np.testing.assert_allclose(scores, np.array([0.7, 0.9, 0.8]) - 0.032, atol=1e-6)
    assert logits.shape == (3, 16, 16)
    single, score, _ = predictor.predict(np.array([[100, 75]]), np.array([1]), multimask_output=False)
    np.testing.assert_array_equal(single[0], masks[1])
    assert score[0] == scores[1]
    assert predictor.original_size == (150, 200)
    assert predictor.input_size == (48, 64)
    assert predictor.is_image_set
    assert predictor.get_image_embedding().shape == (1, 256, 4, 4)


def test_arguments_have_sams_names_and_order() -> None:
    assert list(inspect.signature(SamPredictor.predict).parameters) == [
        "self",
        "point_coords",
        "point_labels",
        "box",
        "mask_input",
        "multimask_output",
        "return_logits",
        "clean",  # ours
    ]
    assert list(inspect.signature(SamAutomaticMaskGenerator).parameters) == [
        "model",
        "points_per_side",
        "points_per_batch",
        "pred_iou_thresh",
        "stability_score_thresh",
        "stability_score_offset",
        "box_nms_thresh",
        "crop_n_layers",
        "crop_nms_thresh",
        "crop_overlap_ratio",
        "crop_n_points_downscale_factor",
        "point_grids",
        "min_mask_region_area",
        "output_mode",
    ]


def test_predict_torch_takes_the_model_frame_and_gives_tensors(predictor: SamPredictor) -> None:
    torch = pytest.importorskip("torch")
    boxes = torch.tensor([[10.0, 20.0, 110.0, 100.0], [50.0, 50.0, 190.0, 140.0]])
    moved = predictor.transform.apply_boxes_torch(boxes, IMAGE.shape[:2])
    masks, iou, low_res = predictor.predict_torch(None, None, boxes=moved)
    expected = predictor.predict_batch(boxes=boxes.numpy())
    assert isinstance(masks, torch.Tensor)
    np.testing.assert_array_equal(masks.numpy(), expected.masks)
    np.testing.assert_allclose(iou.numpy(), expected.iou_predictions, rtol=1e-6)
    np.testing.assert_allclose(low_res.numpy(), expected.low_res_masks, rtol=1e-5)
    points = torch.tensor([[[100.0, 75.0]]])
    labels = torch.tensor([[1]])
    moved = predictor.transform.apply_coords_torch(points, IMAGE.shape[:2])
    masks, _, _ = predictor.predict_torch(moved, labels, multimask_output=False)
    np.testing.assert_array_equal(
        masks.numpy(), predictor.predict_batch(points.numpy(), labels.numpy(), multimask_output=False).masks
    )
    with pytest.raises(ValueError, match="no prompt"):
        predictor.predict_torch(None, None)


def test_set_torch_image_equals_set_image(predictor: SamPredictor) -> None:
    expected = predictor.get_image_embedding()
    resized = predictor.transform.apply_image(IMAGE)
    predictor.set_torch_image(resized.transpose(2, 0, 1)[None].astype(np.float32), IMAGE.shape[:2])
    np.testing.assert_allclose(predictor.get_image_embedding(), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="expected"):
        predictor.set_torch_image(np.zeros((1, 3, 20, 20)), IMAGE.shape[:2])


@pytest.mark.parametrize("mode", ["binary_mask", "uncompressed_rle", "coco_rle"])
def test_records_have_sams_keys(predictor: SamPredictor, mode: str) -> None:
    records = SamAutomaticMaskGenerator(predictor, points_per_side=6, output_mode=mode).generate(IMAGE)
    assert records
    for record in records:
        assert list(record) == [
            "segmentation",
            "area",
            "bbox",
            "predicted_iou",
            "point_coords",
            "stability_score",
            "crop_box",
        ]
        assert record["crop_box"] == [0, 0, 200, 150]
        assert len(record["point_coords"][0]) == 2
        segmentation = record["segmentation"]
        if mode == "binary_mask":
            assert (segmentation.shape, segmentation.dtype) == ((150, 200), np.bool_)
            assert segmentation.sum() == record["area"]
        elif mode == "uncompressed_rle":
            assert sum(segmentation["counts"]) == 150 * 200
            assert sum(segmentation["counts"][1::2]) == record["area"]
        else:
            coco = pytest.importorskip("pycocotools.mask")
            assert coco.area(segmentation) == record["area"]


def test_hierarchical_generator_has_tinysams_names(predictor: SamPredictor) -> None:
    generator = SamHierarchicalMaskGenerator(predictor, points_per_side=8, high_score_thresh=3.0)
    assert generator.settings.coarse_logit_thresh == 3.0
    assert generator.hierarchical_generate(IMAGE)


def test_senseless_arguments_are_refused(predictor: SamPredictor) -> None:
    with pytest.raises(ValueError, match="output_mode is 'png'"):
        SamAutomaticMaskGenerator(predictor, output_mode="png")
    with pytest.raises(ValueError, match="points_per_side or point_grids"):
        SamAutomaticMaskGenerator(predictor, points_per_side=None)


def test_point_grids_are_used_as_given(predictor: SamPredictor) -> None:
    grid = [np.array([[0.5, 0.5]])]
    records = SamAutomaticMaskGenerator(predictor, None, point_grids=grid).generate(IMAGE)
    assert {tuple(record["point_coords"][0]) for record in records} == {(100.0, 75.0)}


def test_resize_longest_side_names() -> None:
    transform = ResizeLongestSide(64)
    assert transform.get_preprocess_shape(150, 200, 64) == (48, 64)
    np.testing.assert_allclose(transform.apply_coords(np.array([[100.0, 75.0]]), (150, 200)), [[32, 24]])
    np.testing.assert_allclose(transform.apply_boxes(np.array([[0, 0, 200, 150]]), (150, 200)), [[0, 0, 64, 48]])


def test_the_attributes_that_code_for_segment_anything_reads(predictor: SamPredictor, disc_artifacts: Path) -> None:
    sam = sam_model_registry["vit_b"](checkpoint=disc_artifacts)
    for model in (sam, predictor.model, SamPredictor(Segmenter(disc_artifacts)).model):
        assert (model.image_encoder.img_size, model.mask_threshold, model.image_format) == (64, 0.0, "RGB")
        assert model.prompt_encoder.mask_input_size == (16, 16)
    assert predictor.device == sam.to("cuda").eval().device == "cpu"


def test_calling_the_model_with_a_batch_gives_what_predict_gives(predictor: SamPredictor) -> None:
    torch = pytest.importorskip("torch")
    size = IMAGE.shape[:2]
    image = torch.from_numpy(predictor.transform.apply_image(IMAGE).transpose(2, 0, 1).copy())
    boxes = np.array([[10.0, 20, 110, 100], [50, 50, 190, 140]])
    asked = [
        {
            "image": image,
            "original_size": size,
            "boxes": predictor.transform.apply_boxes_torch(torch.tensor(boxes), size),
        },
        {
            "image": image,
            "original_size": size,
            "point_coords": torch.tensor(predictor.transform.apply_coords(np.array([[[100.0, 75.0]]]), size)),
            "point_labels": torch.tensor([[1]]),
        },
    ]
    first, second = predictor.model(asked, multimask_output=False)
    expected = predictor.predict_batch(boxes=boxes, multimask_output=False)
    assert set(first) == {"masks", "iou_predictions", "low_res_logits"}
    np.testing.assert_array_equal(first["masks"].numpy(), expected.masks)
    np.testing.assert_allclose(first["low_res_logits"].numpy(), expected.low_res_masks, rtol=1e-5)
    clicked = predictor.predict([[100, 75]], [1], multimask_output=False)
    np.testing.assert_array_equal(second["masks"][0].numpy(), clicked.masks)


def test_images_are_resized_as_by_sam_for_tensors_too() -> None:
    torch = pytest.importorskip("torch")
    pixels = torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())[None].float()
    resized = ResizeLongestSide(64).apply_image_torch(pixels)
    assert resized.shape == (1, 3, 48, 64)
    np.testing.assert_allclose(resized[0].permute(1, 2, 0).numpy(), ResizeLongestSide(64).apply_image(IMAGE), atol=1.01)
