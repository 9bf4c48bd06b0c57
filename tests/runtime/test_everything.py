"""Segment everything: the parts by hand, the whole against a textbook generator at full size."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime import disc_model
from tests.runtime.conftest import picture
from tinysam.runtime import Segmenter
from tinysam.runtime.everything.candidates import cleaned, cut_by_crop, distinct, make_candidates
from tinysam.runtime.everything.crops import crops
from tinysam.runtime.everything.generator import segment_everything
from tinysam.runtime.everything.points import coarse_points, point_grid
from tinysam.runtime.everything.settings import QUALITY, EverythingSettings
from tinysam.runtime.geometry import Frame
from tinysam.runtime.manifest import Cleaning, EverythingThresholds
from tinysam.runtime.mask_choice import stability
from tinysam.runtime.masks.boxes import sub_pixel_boxes
from tinysam.runtime.masks.nms import nms
from tinysam.runtime.results import MaskRecord


def test_grid_points_are_cell_centres() -> None:
    expected = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    np.testing.assert_array_equal(point_grid(2), expected)
    assert len(point_grid(32)) == 1024


def test_crops_of_one_layer_by_hand() -> None:
    # overlap = int(512/1500 * 1500 * 2/2) = 512 pixels; a crop is ceil((512 + side) / 2)
    assert [crop.box for crop in crops((1500, 2000), 1, 512 / 1500)] == [
        (0, 0, 2000, 1500),
        (0, 0, 1256, 1006),
        (0, 494, 1256, 1500),
        (744, 0, 2000, 1006),
        (744, 494, 2000, 1500),
    ]


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (480, 640), (3000, 4000)])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_crops_cover_every_pixel(size: tuple[int, int], layers: int) -> None:
    for layer in range(layers + 1):
        seen = np.zeros(size, np.bool_)
        for crop in crops(size, layers, 512 / 1500):
            x0, y0, x1, y1 = crop.box
            assert 0 <= x0 < x1 <= size[1]
            assert 0 <= y0 < y1 <= size[0]
            if crop.layer == layer:
                seen[y0:y1, x0:x1] = True
        assert seen.all()


def test_stability_by_hand() -> None:
    logits = np.array([[[3.0, 0.5, -0.5, -3.0]], [[-9.0, -9.0, -9.0, -9.0]]], np.float32)
    np.testing.assert_allclose(stability(logits, 1.0), [1 / 3, 0])


def test_sub_pixel_boxes_by_hand() -> None:
    logits = np.full((3, 4, 5), -1.0, np.float32)
    logits[0, 1:3, 2:5] = 3  # crosses 0 a quarter of the way from the centre outside to the centre inside
    logits[2, 3, 0] = 1
    expected = [[1.75, 0.75, 5, 3.25], [np.nan] * 4, [0, 3, 1, 4]]
    np.testing.assert_allclose(sub_pixel_boxes(logits), expected)


def test_masks_at_an_inner_edge_of_a_crop_are_cut() -> None:
    boxes = np.array([[100.0, 100, 200, 200], [300, 100, 495, 200], [2, 100, 200, 200], [100, 100, 200, 499]])
    # the crop is the left half of a photograph 1000 wide and 500 high
    assert cut_by_crop(boxes, (0, 0, 500, 500), (500, 1000)).tolist() == [False, True, False, False]


def textbook(segmenter: Segmenter, image: np.ndarray, settings: EverythingSettings) -> list[dict[str, object]]:
    """SAM's generator without crops, all at full size: the reference for what the fast one may leave out."""
    height, width = image.shape[:2]
    segmenter.set_image(image)
    logits, scores, origins = [], [], []
    for point in point_grid(settings.points_per_side) * [width, height]:
        result = segmenter.predict(point[None], [1], return_logits=True)
        logits += list(result.masks)
        scores += result.iou_predictions.tolist()
        origins += [point] * len(result.masks)
    offset = settings.stability_score_offset
    keep = []
    for index, mask in enumerate(logits):
        stable = (mask > offset).sum() / max(1, (mask > -offset).sum())
        if scores[index] > settings.pred_iou_thresh and stable >= settings.stability_score_thresh and (mask > 0).any():
            keep.append(index)
    boxes = []
    for index in keep:
        y, x = np.nonzero(logits[index] > 0)
        boxes.append([x.min(), y.min(), x.max(), y.max()])
    kept = nms(np.array(boxes, np.float64), np.array([scores[index] for index in keep]), settings.box_nms_thresh)
    return [{"mask": logits[keep[i]] > 0, "score": scores[keep[i]], "point": origins[keep[i]]} for i in kept]


def plain(**changes: object) -> EverythingSettings:
    return EverythingSettings.of_model(disc_model.THRESHOLDS, hierarchical=False, **changes)


def test_plain_grid_finds_what_the_textbook_finds(segmenter: Segmenter) -> None:
    image = np.asarray(picture(200, 150))
    settings = plain(points_per_side=6, stability_score_thresh=0.6)
    expected = textbook(segmenter, image, settings)
    found = segment_everything(segmenter, image, settings)
    assert not found.notes
    assert found.points == 36
    by_key = {(mask.point_coords[0], round(mask.predicted_iou, 5)): mask for mask in found.masks}
    # Boxes at low resolution may decide a close call of the suppression differently: nearly all have to agree.
    matches = 0
    for one in expected:
        point = one["point"]
        assert isinstance(point, np.ndarray)
        mask = by_key.get(((point[0], point[1]), round(float(str(one["score"])), 5)))
        matches += mask is not None and bool((mask.mask() == one["mask"]).all())
    assert matches >= 0.9 * len(expected)
    assert abs(len(found.masks) - len(expected)) <= 0.1 * len(expected)
    assert len(expected) > 10


def test_masks_come_largest_first_and_know_themselves(segmenter: Segmenter) -> None:
    found = segment_everything(segmenter, picture(200, 150), plain())
    areas = [mask.area for mask in found.masks]
    assert areas == sorted(areas, reverse=True)
    for mask in found.masks:
        pixels = mask.mask()
        assert pixels.shape == (150, 200)
        assert pixels.sum() == mask.area
        y, x = np.nonzero(pixels)
        assert mask.bbox == (x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1)
        assert mask.crop_box == (0, 0, 200, 150)


def test_hierarchical_asks_fewer_points_and_finds_the_same_large_masks(segmenter: Segmenter) -> None:
    image = picture(200, 150)
    both = [
        segment_everything(segmenter, image, plain(points_per_side=16)),
        segment_everything(segmenter, image, EverythingSettings.of_model(disc_model.THRESHOLDS, points_per_side=16)),
    ]
    assert both[0].points == 256
    assert both[1].points < 128
    covered = [np.any([mask.mask() for mask in found.masks], axis=0) for found in both]
    assert (covered[0] == covered[1]).mean() > 0.95


def test_hierarchical_with_no_points_left_is_no_error(segmenter: Segmenter) -> None:
    settings = EverythingSettings.of_model(disc_model.THRESHOLDS, points_per_side=8, coarse_logit_thresh=-100.0)
    found = segment_everything(segmenter, picture(200, 150), settings)
    assert found.points == 4
    asked = {mask.point_coords[0] for mask in found.masks}
    assert 1 <= len(asked) <= 4
    assert asked <= set(map(tuple, (settings.grid(0) * [200, 150]).tolist()))


def test_points_of_a_single_cell_grid(segmenter: Segmenter) -> None:
    found = segment_everything(segmenter, picture(9, 7), EverythingSettings(points_per_side=1, pred_iou_thresh=0.1))
    assert found.points == 1


def test_crop_layers_find_more_and_stay_inside_their_crops(segmenter: Segmenter) -> None:
    image = picture(400, 300)
    whole = segment_everything(segmenter, image, plain())
    cropped = segment_everything(segmenter, image, plain(crop_n_layers=1))
    assert cropped.points == 5 * 64
    assert len(cropped.masks) > len(whole.masks)
    boxes = {mask.crop_box for mask in cropped.masks}
    assert len(boxes) > 1
    for mask in cropped.masks:
        assert mask.crop_box is not None
        x0, y0, x1, y1 = mask.crop_box
        pixels = mask.mask()
        assert pixels.sum() == pixels[y0:y1, x0:x1].sum()


def test_downscaled_point_grid_of_crops() -> None:
    settings = EverythingSettings(points_per_side=32, crop_n_layers=2, crop_n_points_downscale_factor=2)
    assert [len(settings.grid(layer)) for layer in range(3)] == [1024, 256, 64]
    assert [len(coarse_points(settings.grid(layer), 32 // 2**layer)) for layer in range(3)] == [64, 16, 4]


def test_points_are_left_out_only_where_enough_masks_agree(segmenter: Segmenter) -> None:
    changes = {"points_per_side": 16, "coarse_logit_thresh": 5.0}
    asked = []
    for agreement in (2, 6, 20):
        settings = EverythingSettings.of_model(disc_model.THRESHOLDS, coarse_agreement=agreement, **changes)
        asked.append(segment_everything(segmenter, picture(200, 150), settings).points)
    assert 16 < asked[0] < asked[1] < asked[2] < 256


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_no_more_than_a_share_of_the_grid_is_asked(segmenter: Segmenter, share: float) -> None:
    changes = {"points_per_side": 16, "coarse_logit_thresh": 1000.0, "coarse_share": share}
    settings = EverythingSettings.of_model(disc_model.THRESHOLDS, **changes)
    found = segment_everything(segmenter, picture(200, 150), settings)
    assert found.points == max(16, share * 256)  # the coarse grid is asked in any case


def test_hierarchical_mode_compares_masks_unless_a_caller_has_a_threshold_for_boxes(segmenter: Segmenter) -> None:
    counts = []
    for changes in ({}, {"box_nms_thresh": 0.2}, {"mask_nms_thresh": 0.2}, {"mask_nms_thresh": 1.0}):
        settings = EverythingSettings.of_model(
            disc_model.THRESHOLDS, points_per_side=20, coarse_agreement=50, **changes
        )
        counts.append(len(segment_everything(segmenter, picture(200, 150), settings).masks))
        assert (settings.mask_nms_thresh is None) == ("box_nms_thresh" in changes)
    usual, by_box, by_mask, all_of_them = counts
    assert 0 < by_box < usual < all_of_them
    assert by_mask < usual


@pytest.mark.parametrize("hierarchical", [False, True])
def test_hierarchical_mode_takes_the_single_mask_as_well(tmp_path: Path, hierarchical: bool) -> None:
    """Mask 0 promises 0.7 less a thousandth of its x, up to 64; mask 1 as much of 0.9."""
    segmenter = Segmenter(disc_model.build(tmp_path, (0, 1)), precision="fp32", threads=1)
    settings = EverythingSettings.of_model(disc_model.THRESHOLDS, hierarchical=hierarchical)
    promised = [mask.predicted_iou for mask in segment_everything(segmenter, picture(200, 150), settings).masks]
    assert any(iou > 0.8 for iou in promised)
    assert any(iou < 0.75 for iou in promised) == hierarchical


def test_masks_of_one_object_become_their_mean() -> None:
    """Three squares, moved by a pixel each: the mean has the columns that two of them have. A fourth is alone."""
    logits = np.full((4, disc_model.SIDE, disc_model.SIDE), -4.0, np.float32)
    for index in range(3):
        logits[index, 2:12, 1 + index : 11 + index] = 4
    logits[3, 13:, 13:] = 4
    frame = Frame((64, 64), disc_model.SIZE)
    iou, scores = np.array([0.5, 0.9, 0.6, 0.3], np.float32), np.full(4, 0.8)
    candidates = make_candidates(frame, logits, iou, scores, np.arange(8.0).reshape(4, 2))
    settings = EverythingSettings(mask_nms_thresh=0.7)
    group, alone = distinct(candidates, settings, frame)
    # From a logit of -2 in column 1 to 1.6 in column 2, and back ten columns later.
    np.testing.assert_allclose(group.box, [4 * (2.5 - 1.6 / 3.6), 8, 4 * (12.5 - 1.6 / 3.6), 48], rtol=1e-6)
    assert (group.mask.sum(), group.point, round(group.predicted_iou, 3)) == (100, (2.0, 3.0), 0.9)
    weights = iou[:3] / iou[:3].sum()
    top, left = group.origin
    assert group.logits[5 - top, 1 - left] == pytest.approx(4 * (weights[0] - weights[1] - weights[2]))
    assert alone is candidates[3]
    boxes = distinct(candidates, EverythingSettings(box_nms_thresh=0.7), frame)
    assert boxes == [candidates[1], candidates[3]]


def test_masks_are_cleaned_after_duplicates_are_gone(segmenter: Segmenter) -> None:
    """A candidate with a hole and a speck: both go, the box shrinks, and a mask that needs nothing stays as it is."""
    logits = np.full((1, disc_model.SIDE, disc_model.SIDE), -4.0, np.float32)
    logits[0, 2:8, 2:8], logits[0, 4, 4], logits[0, 10, 10] = 4, -4, 4
    frame = Frame((64, 64), disc_model.SIZE)
    (dirty,) = make_candidates(frame, logits, np.ones(1, np.float32), np.ones(1), np.zeros((1, 2)))
    clean = cleaned(dirty, Cleaning(islands=0.1, holes=0.1), frame)
    assert (clean.logits > 0).sum() == 36
    np.testing.assert_allclose(dirty.box, [8, 8, 44, 44])
    np.testing.assert_allclose(clean.box, [8, 8, 32, 32])
    assert cleaned(clean, Cleaning(islands=0.1, holes=0.1), frame) is clean


def test_small_regions_are_removed(segmenter: Segmenter) -> None:
    found = segment_everything(segmenter, picture(200, 150), plain(min_mask_region_area=10**6))
    # Around every disc lies a hole of fewer pixels, so all become the whole picture, and one of these is enough.
    assert [mask.area for mask in found.masks] == [200 * 150]


@pytest.mark.parametrize(
    ("thresholds", "note"),
    [
        (EverythingThresholds(8, pred_iou_thresh=0.95, stability_score_thresh=0.5), "lowered to 0.85 and 0.40"),
        (EverythingThresholds(8, pred_iou_thresh=1.0, stability_score_thresh=1.0), "lowered to 0.80 and 0.80"),
    ],
)
@pytest.mark.parametrize("hierarchical", [False, True])
def test_thresholds_out_of_reach_are_relaxed_and_it_is_said(
    segmenter: Segmenter, thresholds: EverythingThresholds, note: str, hierarchical: bool
) -> None:
    settings = EverythingSettings.of_model(thresholds, hierarchical=hierarchical)
    found = segment_everything(segmenter, picture(200, 150), settings)
    iou, stable = (float(number) for number in re.findall(r"\d\.\d\d", note))
    reached = [(mask.predicted_iou, mask.stability_score) for mask in found.masks]
    assert reached
    assert all(one > iou and other >= stable for one, other in reached)
    assert not any(
        one > thresholds.pred_iou_thresh and other >= thresholds.stability_score_thresh for one, other in reached
    )
    assert note in found.notes[0]


UNREACHABLE = EverythingThresholds(8, pred_iou_thresh=0.99, stability_score_thresh=0.99)


@pytest.mark.parametrize("hierarchical", [False, True])
@pytest.mark.parametrize(
    ("iou", "stable", "any_masks"), [(0.85, None, True), (None, 0.8, True), (0.85, 0.95, False), (0.95, 0.5, False)]
)
def test_given_thresholds_are_never_lowered(
    segmenter: Segmenter, hierarchical: bool, iou: float | None, stable: float | None, any_masks: bool
) -> None:
    given = {name: value for name, value in zip(QUALITY, (iou, stable), strict=True) if value is not None}
    settings = EverythingSettings.of_model(UNREACHABLE, hierarchical=hierarchical, **given)
    found = segment_everything(segmenter, picture(200, 150), settings)
    assert bool(found.masks) == any_masks
    assert all(mask.predicted_iou > (iou or 0) and mask.stability_score >= (stable or 0) for mask in found.masks)
    assert "no mask reached" in found.notes[0]


def test_threshold_that_is_replaced_later_counts_as_given() -> None:
    settings = replace(EverythingSettings.of_model(UNREACHABLE), pred_iou_thresh=0.5)
    assert not settings.may_lower("pred_iou_thresh")
    assert settings.lowered(0.25) == (0.5, 0.74)
    assert not any(EverythingSettings(points_per_side=8).may_lower(name) for name in QUALITY)


def noisy(level: float, sigma: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(level, sigma, (480, 640, 3))
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("flat", [noisy(0, 0), noisy(255, 0), noisy(120, 0), noisy(5, 4), noisy(100, 10)])
def test_flat_picture_has_no_objects_and_it_is_said(segmenter: Segmenter, flat: Image.Image) -> None:
    found = segment_everything(segmenter, flat, plain(crop_n_layers=1))
    assert (found.masks, found.points) == ([], 0)
    assert "flat" in found.notes[0]


@pytest.mark.parametrize(("side", "contrast"), [(12, 255), (40, 30), (200, 5)])
def test_faint_or_small_object_is_still_looked_for(segmenter: Segmenter, side: int, contrast: int) -> None:
    pixels = np.asarray(noisy(0, 0)).copy()
    pixels[100 : 100 + side, 300 : 300 + side] = contrast
    assert segment_everything(segmenter, Image.fromarray(pixels), plain()).masks


def test_nothing_found_is_said(tmp_path: Path) -> None:
    """A brightness far below zero lowers every logit of the disc model under its largest radius."""
    folder = disc_model.build(tmp_path)
    segmenter = Segmenter(folder, precision="fp32", threads=1)
    dark = segmenter.graphs.encode
    segmenter.graphs.encode = lambda image: dark(image) - 1e4  # type: ignore[method-assign]
    found = segment_everything(segmenter, picture(), plain())
    assert not found.masks
    assert found.notes == ("the model found nothing in this image",)


def test_same_image_gives_identical_masks(segmenter: Segmenter) -> None:
    def signature() -> list[tuple[float, list[int]]]:
        found: list[MaskRecord] = segment_everything(segmenter, picture(200, 150)).masks
        return [(mask.predicted_iou, mask.rle.counts.tolist()) for mask in found]

    first = signature()
    assert all(signature() == first for _ in range(3))


@pytest.mark.parametrize("hierarchical", [False, True])
def test_batch_size_does_not_change_the_masks(segmenter: Segmenter, hierarchical: bool) -> None:
    image = Image.fromarray(np.asarray(picture(120, 90)))
    counts = []
    for batch in (1, 5, 64, 1000):
        settings = EverythingSettings.of_model(disc_model.THRESHOLDS, points_per_batch=batch, hierarchical=hierarchical)
        found = segment_everything(segmenter, image, settings)
        counts.append([mask.rle.counts.tolist() for mask in found.masks])
    assert counts[0] == counts[1] == counts[2] == counts[3]


def test_encoder_and_decoder_may_be_freed_after_their_last_use(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EverythingSettings(points_per_side=4, crop_n_layers=1, pred_iou_thresh=0.3, stability_score_thresh=0.3)
    graphs, steps = segmenter.graphs, []
    for name in ("encode", "decode_above", "release"):

        def noted(*values: object, name: str = name, do: object = getattr(graphs, name)) -> object:
            steps.append(" ".join([name, *[value for value in values if isinstance(value, str)]]))
            return do(*values)  # type: ignore[operator]

        monkeypatch.setattr(graphs, name, noted)
    expected = segment_everything(segmenter, picture(), settings).masks
    assert not [step for step in steps if step.startswith("release")]
    steps.clear()
    found = segment_everything(segmenter, picture(), settings, release=True).masks
    assert [mask.rle.counts.tolist() for mask in found] == [mask.rle.counts.tolist() for mask in expected]
    assert steps.count("encode") == 5
    last = len(steps) - 1 - steps[::-1].index("encode")
    assert steps.index("release encoder") == last + 1
    assert steps.index("release decoder") == len(steps) - 1


@pytest.mark.parametrize(
    "changes",
    [
        {"points_per_side": 0},
        {"points_per_batch": 0},
        {"crop_n_layers": 5},
        {"crop_n_points_downscale_factor": 0},
        {"crop_overlap_ratio": 1.0},
        {"coarse_share": 1.5},
        {"mask_nms_thresh": -0.1},
        {"point_grids": [np.zeros((1, 2)), np.zeros((1, 2))]},
    ],
)
def test_senseless_settings_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        EverythingSettings(**changes)  # type: ignore[arg-type]
