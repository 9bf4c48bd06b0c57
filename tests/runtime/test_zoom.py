import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime.conftest import picture
from tinysam.runtime import PromptError, Segmenter, command
from tinysam.runtime.cli import main
from tinysam.runtime.geometry import Frame
from tinysam.runtime.image import load_image
from tinysam.runtime.manifest import Cleaning, ZoomIn
from tinysam.runtime.objects import segment
from tinysam.runtime.prompts import BOX_LOGIT, ObjectPrompt
from tinysam.runtime.zoom import Looks, Views, in_window, window_around

ZOOM = ZoomIn(1.5, 2.0)


@pytest.fixture
def photograph() -> Image.Image:
    return picture(600, 400)


@pytest.fixture
def zooming(segmenter: Segmenter) -> Segmenter:
    """The model of discs, 64 pixels a side, with windows; keeps what goes in and the predicted IoUs."""
    graphs = segmenter.graphs
    graphs.manifest = replace(graphs.manifest, zoom_in=ZOOM)
    encode, decode = graphs.encode, graphs.decode
    segmenter.encoded, segmenter.asked, segmenter.predicted = [], [], []

    def keep_image(inputs):
        segmenter.encoded.append(inputs.shape)
        return encode(inputs)

    def keep_prompts(embedding, prompts):
        masks, iou = decode(embedding, prompts)
        segmenter.asked.append(prompts)
        segmenter.predicted.append(float(iou[0].max()))
        return masks, iou

    graphs.encode, graphs.decode = keep_image, keep_prompts
    return segmenter


def looks_at(segmenter: Segmenter, image: Image.Image, zoom_in: bool = True) -> Looks:
    return Looks(segmenter, Views.of(image, segmenter.manifest, zoom_in))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((100, 100, 200, 160), (75, 55, 225, 205)),  # in the middle: 150 wide around (150, 130)
        ((0, 0, 100, 60), (0, 0, 150, 150)),  # moved into the photograph
        ((560, 350, 600, 400), (525, 325, 600, 400)),
        ((100, 50, 380, 90), (30, 0, 450, 400)),  # 420 wide, but the photograph is 400 high
        ((100, 100, 110, 104), (85, 82, 125, 122)),  # not below 40
    ],
)
def test_windows_by_hand(box, expected):
    assert window_around([box[:2], box[2:]], 1.5, (400, 600), 40.0) == expected


def test_an_object_that_fills_the_photograph_has_no_window():
    assert window_around([(0, 0), (320, 100)], 1.5, (400, 600), 1.0) is not None
    assert window_around([(0, 0), (321, 100)], 1.5, (400, 600), 1.0) is None
    assert window_around([(5, 5), (9, 9)], 1.5, (80, 100), 90.0) is None


def test_a_mask_is_carried_into_a_window():
    """A logit that grows by 2 a pixel to the right and falls by 3 a pixel downwards is the same in the window."""
    frame, window = Frame((300, 400), 64), (120, 60, 220, 160)
    x, y = (np.arange(16) + 0.5) * 25, (np.arange(16) + 0.5) * 25
    ramp = (2 * x[None] - 3 * y[:, None]).astype(np.float32)
    mask = in_window(ramp, frame, window, Frame((100, 100), 64))
    inner_x, inner_y = 120 + (np.arange(16) + 0.5) * 100 / 16, 60 + (np.arange(16) + 0.5) * 100 / 16
    assert mask.shape == (1, 1, 16, 16)
    np.testing.assert_allclose(mask[0, 0], 2 * inner_x[None] - 3 * inner_y[:, None], rtol=1e-5, atol=1e-3)


def test_beside_a_window_at_the_border_there_is_no_mask():
    mask = in_window(np.full((16, 16), 5, np.float32), Frame((300, 400), 64), (0, 0, 100, 50), Frame((50, 100), 64))
    assert (mask[0, 0, :8] == 5).all() and (mask[0, 0, 8:] == -BOX_LOGIT).all()


def test_windows_show_what_a_crop_shows(photograph, zooming):
    views = Views.of(photograph.resize((240, 160)), zooming.manifest, True)
    pixels, frame = views.window((40, 20, 120, 100))
    expected = views.copy.crop((40, 20, 120, 100)).resize((64, 64), Image.Resampling.BILINEAR)
    # Pillow rounds between its two passes, which it may take in another order.
    assert np.abs(pixels.astype(int) - np.asarray(expected)).max() <= 1
    assert frame == Frame((80, 80), 64) and views.least_side == 16


def test_of_a_large_photograph_a_smaller_copy_is_kept(photograph, zooming):
    views = Views.of(photograph, zooming.manifest, True)
    assert views.copy.size == (300, 200)
    assert views.least_side == 32
    pixels, _ = views.window((150, 100, 250, 200))
    expected = photograph.crop((150, 100, 250, 200)).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.abs(pixels.astype(int) - np.asarray(expected)).mean() < 1


def test_windows_of_a_copy_are_where_they_are_on_the_photograph(zooming):
    """1001 x 701 pixels: no multiples of the 3 that the copy is reduced by. An edge lies amid each window."""
    pixels = np.zeros((701, 1001, 3), np.uint8)
    pixels[:, 900:] = 255
    pixels[600:] = 255
    views = Views.of(Image.fromarray(pixels), zooming.manifest, True)
    assert views.factor == 3 and views.copy.size == (334, 234)
    for window, axis in (((799, 200, 1001, 402), 1), ((300, 499, 502, 701), 0)):
        shown, _ = views.window(window)
        white = shown[..., 0].mean(axis=1 - axis).sum() / 255
        assert 64 - white == pytest.approx(101 / 202 * 64, abs=0.1)


def test_a_box_over_the_border_is_cut_off_before_its_window_is_laid(photograph, zooming):
    prompts = [ObjectPrompt(box=box) for box in ((-500.0, -10.0, 50.0, 60.0), (0.0, 0.0, 50.0, 60.0))]
    over, inside = (looks_at(zooming, photograph).answer(prompt) for prompt in prompts)
    assert over.window == inside.window == (0, 0, 90, 90)
    np.testing.assert_array_equal(over.low_res, inside.low_res)


def test_looks_forget_what_the_segmenter_held(photograph, zooming):
    expected = looks_at(zooming, photograph).whole.get_image_embedding()
    zooming.set_image(Image.new("RGB", (600, 400)))
    found = looks_at(zooming, photograph).whole.get_image_embedding()
    np.testing.assert_array_equal(found, expected)


def test_resizing_is_in_the_times(photograph, zooming):
    looks = Looks(zooming, replace(Views.of(photograph, zooming.manifest, True), resize_ms=1000.0))
    looks.answer(ObjectPrompt(box=(200.0, 100.0, 260.0, 160.0)))
    assert 1000 < looks.timing_ms["resize"] < 1500


def test_a_box_is_encoded_once_and_its_disc_is_smaller(photograph, zooming):
    box = (200.0, 100.0, 260.0, 160.0)
    whole = looks_at(zooming, photograph, zoom_in=False).answer(ObjectPrompt(box=box))
    zooming.reset_image()
    zooming.encoded.clear()
    looks = looks_at(zooming, photograph)
    answer = looks.answer(ObjectPrompt(box=box))
    assert len(zooming.encoded) == 1 and not zooming.is_image_set
    assert whole.window is None and answer.window == (185, 85, 275, 175)
    small, large = (one.rle(one.low_res, looks.size) for one in (answer, whole))
    # 12 pixels of 64 are the disc's radius in both: of 90 and of 600 pixels.
    assert np.sqrt(small.area / np.pi) == pytest.approx(12 * 90 / 64, rel=0.05)
    assert np.sqrt(large.area / np.pi) == pytest.approx(12 * 600 / 64, rel=0.05)
    x0, y0, x1, y1 = small.box
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((230, 130), abs=1)


def test_a_click_is_answered_around_its_first_mask(photograph, zooming):
    zooming.graphs.manifest = replace(zooming.manifest, zoom_in=ZoomIn(0, 1.2))
    looks = looks_at(zooming, photograph)
    point = (300.0, 200.0, 1)
    first = looks_at(zooming, photograph, zoom_in=False).answer(ObjectPrompt((point,)))
    zooming.reset_image()
    zooming.encoded.clear()
    zooming.asked.clear()
    zooming.predicted.clear()
    answer = looks.answer(ObjectPrompt((point,)))
    assert len(zooming.encoded) == 2 and answer.window is not None
    asked = zooming.asked
    x0, y0, x1, y1 = answer.window
    diameter = 2 * np.sqrt(first.rle(first.low_res, looks.size).area / np.pi)
    assert x1 - x0 == pytest.approx(1.2 * diameter, rel=0.15)
    assert asked[0].mask_input is None
    np.testing.assert_allclose(
        asked[1].coords[0, 0], [(300 - x0) * 64 / (x1 - x0), (200 - y0) * 64 / (y1 - y0)], rtol=0.02
    )
    np.testing.assert_array_equal(
        asked[1].mask_input, in_window(first.low_res, first.frame, answer.window, Frame((y1 - y0, x1 - x0), 64))
    )


def test_predicted_iou_of_clicks_is_the_mean_of_both_looks(photograph, zooming):
    """At the photograph's border, where the click is not amid the window, so that the disc model is less sure."""
    answer = looks_at(zooming, photograph).answer(ObjectPrompt(((20.0, 200.0, 1),)))
    first, closer = zooming.predicted
    assert abs(first - closer) > 0.0005
    assert answer.predicted_iou == pytest.approx((first + closer) / 2)


def test_points_that_the_window_does_not_show_are_left_out(photograph, zooming):
    points = ((230.0, 130.0, 1), (240.0, 120.0, 0), (500.0, 390.0, 0))
    looks_at(zooming, photograph).answer(ObjectPrompt(points, (200.0, 100.0, 260.0, 160.0)))
    assert zooming.asked[0].labels.tolist() == [[1, 0, 2, 3]]
    # A point on the object, though, is one of the things that the window is laid around.
    answer = looks_at(zooming, photograph).answer(ObjectPrompt(((290.0, 130.0, 1),), (200.0, 100.0, 260.0, 160.0)))
    assert answer.window == (177, 62, 313, 198)


def test_an_empty_or_a_large_first_mask_stays(photograph, zooming):
    looks = looks_at(zooming, photograph)
    first = looks_at(zooming, photograph, zoom_in=False).answer(ObjectPrompt(((300.0, 200.0, 1),)))
    empty = replace(first, low_res=np.full_like(first.low_res, -1))
    assert looks.closer([(300.0, 200.0, 1)], empty) is empty
    full = replace(first, low_res=np.full_like(first.low_res, 1))
    assert looks.closer([(300.0, 200.0, 1)], full) is full


def test_where_the_window_shows_nothing_the_first_mask_stays(photograph, zooming):
    zooming.graphs.manifest = replace(zooming.manifest, zoom_in=ZoomIn(0, 1.2))
    decode = zooming.graphs.decode

    def blind(embedding, prompts):
        masks, iou = decode(embedding, prompts)
        return (masks, iou) if prompts.mask_input is None else (np.full_like(masks, -1), iou)

    zooming.graphs.decode = blind
    answer = looks_at(zooming, photograph).answer(ObjectPrompt(((300.0, 200.0, 1),)))
    assert answer.window is None and (answer.low_res > 0).any() and len(zooming.encoded) == 2


def test_wrong_prompts_are_named_in_the_photographs_pixels(photograph, zooming):
    looks = looks_at(zooming, photograph)
    with pytest.raises(PromptError, match=r"box \(700, 10, 720, 30\) lies outside the image, which is 600 wide"):
        looks.answer(ObjectPrompt(box=(700.0, 10.0, 720.0, 30.0)))
    with pytest.raises(PromptError, match="x from 0 to 600"):
        looks.answer(ObjectPrompt(((700.0, 10.0, 1),)))
    with pytest.raises(PromptError, match="x from 0 to 600"):
        looks.answer(ObjectPrompt(((700.0, 10.0, 0),), (200.0, 100.0, 260.0, 160.0)))


def test_without_windows_in_the_manifest_nothing_changes(photograph, segmenter):
    assert segmenter.manifest.zoom_in == ZoomIn()
    result = segment(segmenter, photograph, [ObjectPrompt(box=(200, 100, 260, 160))])
    assert result.masks[0].crop_box is None
    plain = segment(segmenter, photograph, [ObjectPrompt(box=(200, 100, 260, 160))], zoom_in=False)
    assert result.masks[0].rle.counts.tolist() == plain.masks[0].rle.counts.tolist()


def test_records_tell_the_window(photograph, zooming):
    result = segment(zooming, photograph, [ObjectPrompt(box=(200, 100, 260, 160)), ObjectPrompt(((300, 200, 1),))])
    assert [mask.crop_box for mask in result.masks] == [(185, 85, 275, 175), (75, 0, 525, 400)]
    assert {"resize", "encoder", "decoder", "masks"} <= set(result.timing_ms)


def test_a_kept_embedding_answers_without_a_further_look(photograph, zooming, tmp_path: Path):
    prompt = [ObjectPrompt(box=(200, 100, 260, 160))]
    for _ in range(2):
        result = segment(zooming, photograph, prompt, embedding=tmp_path / "kept.npz")
        assert result.masks[0].crop_box is None
    assert len(zooming.encoded) == 1


@pytest.mark.parametrize(
    ("width", "prompt"),
    [
        (2500, ObjectPrompt(box=(1400, 190, 1650, 420))),
        (2500, ObjectPrompt(((1400, 1100, 1),))),
        (3000, ObjectPrompt(box=(1680, 228, 1980, 504))),
        (3000, ObjectPrompt(((1680, 1320, 1),))),
    ],
)
def test_the_command_looks_closer_unless_told_not_to(real_artifacts, tmp_path, monkeypatch, width, prompt):
    """From 2689 pixels on a smaller copy is held in place of the photograph while the model runs."""
    from skimage import data

    image = Image.fromarray(data.coffee()).resize((width, width * 17 // 25), Image.Resampling.BICUBIC)
    image.save(tmp_path / "coffee.png")
    given = (
        ["--box", ",".join(map(str, prompt.box))]
        if prompt.box
        else ["--point", f"{prompt.points[0][0]},{prompt.points[0][1]}"]
    )
    asked = [str(tmp_path / "coffee.png"), *given, "--model", str(real_artifacts), "--threads", "1"]
    decoded = []
    monkeypatch.setattr(command, "load_image", lambda *given: decoded.append(given) or load_image(*given))
    segmenter = Segmenter(real_artifacts, threads=1)
    for name, option in (("closer", []), ("whole", ["--no-zoom-in"])):
        out = tmp_path / name
        assert main([*asked, *option, "--format", "json,overlay", "--out", str(out)]) == 0
        (found,) = json.loads((out / "coffee.coco.json").read_text())["annotations"]
        record = segment(segmenter, image, [prompt], zoom_in=not option).masks[0]
        assert found["segmentation"]["counts"] == record.rle.to_coco()
        assert found["crop_box"] == (None if record.crop_box is None else list(record.crop_box))
        assert (record.crop_box is None) == bool(option)
    assert len(decoded) == 3 + (width == 3000)  # what is held is not decoded again for the overlay


def test_a_small_box_on_a_real_photograph_is_its_crop_segmented(real_artifacts):
    from skimage import data

    image = Image.fromarray(data.coffee())  # 600 x 400
    segmenter = Segmenter(real_artifacts, threads=1)
    box = (335.0, 45.0, 395.0, 100.0)
    record = segment(segmenter, image, [ObjectPrompt(box=box)], clean=False).masks[0]
    x0, y0, x1, y1 = record.crop_box
    assert max(x1 - x0, y1 - y0) == 113
    segmenter.set_image(image.crop(record.crop_box))
    alone = segmenter.predict(box=np.array(box) - [x0, y0, x0, y0], multimask_output=None)
    expected = np.zeros((400, 600), bool)
    expected[y0:y1, x0:x1] = alone.masks[0]
    assert (record.mask() & expected).sum() > 0.99 * (record.mask() | expected).sum()
    assert record.predicted_iou == pytest.approx(float(alone.iou_predictions[0]), abs=0.01)
    assert segmenter.manifest.cleaning != Cleaning()
