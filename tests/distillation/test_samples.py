from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from skimage import data

from tinysam.datasets.coco import DataError, Mask, read_coco
from tinysam.datasets.prompts import largest_part
from tinysam.distillation.augment import FAULTS, View, cells, colour, night, paste
from tinysam.distillation.making import TILES, others_at, truth_at, whole_pixels
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.samples import Draw, Numbers, Samples, collate


def masks_of(sample: dict[str, np.ndarray]) -> np.ndarray:
    return np.unpackbits(sample["masks"], axis=-1).astype(bool)


def test_the_same_number_gives_the_same_sample(photos, recipe):
    one, other = Samples(photos, recipe)[5], Samples(photos, recipe)[5]
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not np.array_equal(one["pixels"], Samples(photos, recipe)[6]["pixels"])


def test_masks_stay_on_their_objects_through_crops_and_flips(photos):
    recipe = Recipe(image_size=224, prompts=2, paste_share=0, mosaic_share=0, fault_share=0, colour=0, whole_share=0.2)
    checked = 0
    for number in range(30):
        sample = Samples(photos, recipe)[number]
        for mask in masks_of(sample):
            inside = sample["pixels"][:, mask]
            bright = inside.max(axis=0) > 130
            checked += mask.sum()
            assert bright.mean() > 0.9
    assert checked > 10_000


def test_samples_without_augmentation_are_whole_photographs(photos):
    sample = Samples(photos, Recipe(image_size=224, prompts=2, augmented=False))[0]
    pixels, shown = whole_pixels(photos[int(sample["indexes"])], 224)
    assert np.array_equal(sample["pixels"], pixels)
    assert tuple(sample["shown"]) == shown
    assert max(shown) == 224


class Fixed:
    """Stands for a random generator: gives the numbers it was made of."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def uniform(self, low=0.0, high=1.0, count=None):
        return np.array([self.numbers.pop(0) for _ in range(count)]) if count else self.numbers.pop(0)

    def permutation(self, count):
        return np.roll(np.arange(count), 1)


def test_colours_change_as_written_down():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    saturation, contrast, gains, level, gamma = 0.7, 1.2, np.array([1.1, 0.9, 1.0]), 12.0, 1.3
    draws = Fixed(0.05, -0.6, 0.4, 1.0, 0.6, -0.6, 0.0, level / 255 / 0.25, np.log(gamma) / 0.5)
    x = pixels.astype(float)[..., [2, 0, 1]]
    grey = x.mean(axis=-1, keepdims=True)
    mean = pixels[::4, ::4].mean()
    x = (mean + contrast * (grey + saturation * (x - grey) - mean)) * gains + level
    expected = 255 * (x.clip(0, 255) / 255) ** gamma
    assert np.abs(colour(pixels, 0.5, draws) - expected).max() < 1.7  # rounded to whole numbers twice


def test_pasting_hides_what_lies_below():
    canvas = np.zeros((10, 10, 3), np.uint8)
    below = np.ones((10, 10), bool)
    cover = np.full((4, 4), 255, np.uint8)
    cover[0, 0], cover[0, 1] = 0, 51
    thing = np.full((4, 4, 3), 200, np.uint8)
    placed = paste(canvas, [below], thing, cover, np.random.default_rng(0))
    assert placed.sum() == 14
    assert (canvas[placed] == 200).all()
    assert np.unique(canvas).tolist() == [0, 40, 200]  # a fifth of the edge's pixel is covered
    assert not (below & placed).any()
    assert below.sum() == 86


def test_a_thing_larger_than_the_canvas_is_not_pasted():
    canvas = np.zeros((10, 10, 3), np.uint8)
    thing = np.zeros((4, 12, 3), np.uint8)
    assert paste(canvas, [], thing, np.full((4, 12), 255, np.uint8), np.random.default_rng(0)) is None


def test_a_flipped_view_mirrors_the_mask():
    mask = np.zeros((10, 20), np.uint8)
    mask[:, :5] = 1
    shown = View((0, 0, 20, 10), 40, 20, flip=True).mask(mask)
    assert shown[:, 30:].all()
    assert not shown[:, :30].any()


def test_processes_share_a_step_without_overlap():
    recipe = Recipe(batch=4, steps=3, decay_steps=0)
    alone = list(Numbers(recipe, 1))
    first, second = (list(Numbers(recipe, 1, rank, 2)) for rank in (0, 1))
    assert alone == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert [a + b for a, b in zip(first, second, strict=True)] == alone


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="batch 4 does not divide over 3 processes"):
        Numbers(Recipe(batch=4), 0, 0, 3)


def test_collate_keeps_prompts_of_a_photograph_together(photos, recipe):
    samples = [Samples(photos, recipe)[i] for i in range(3)]
    batch = collate(samples)
    assert batch.pixels.shape == (3, 3, 224, 224)
    assert batch.coords.shape == (6, 2, 2)
    assert np.array_equal(batch.masks[2:4].numpy(), samples[1]["masks"])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: Image.new("RGB", (50, 50)).save(path), "50 x 50 pixels, its annotations say"),
        (lambda path: path.write_bytes(b"no picture"), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "cannot be read"),
        (lambda path: path.unlink(), "cannot be read"),
    ],
    ids=["size", "picture", "cut off", "missing"],
)
def test_a_damaged_photograph_is_passed_over_and_counted_once(photos, recipe, caplog, damage, reason):
    damage(photos[1].path)
    samples = Samples(photos, recipe, limit=1)
    assert {int(samples[number]["indexes"]) for number in range(20)} == {0, 2, 3}
    assert caplog.text.count("skipped") == 1
    assert f"1.png: {reason}" in caplog.text


def test_too_many_damaged_photographs_stop_the_run(photos, recipe):
    for photo in photos[:2]:
        photo.path.unlink()
    samples = Samples(photos, recipe, limit=1)
    with pytest.raises(DataError, match="more than 1 damaged shards or photographs, the last: .*png: cannot be read"):
        [samples[number] for number in range(20)]
    for photo in photos[2:]:
        photo.path.unlink()
    with pytest.raises(DataError, match="nothing usable in 8 photographs in a row"):
        Samples(photos, recipe)[0]


@pytest.mark.parametrize(("power", "expected"), [(1.0, 0.9), (0.5, 0.75), (0.0, 0.5)])
def test_sources_are_drawn_by_a_power_of_their_size(photos, power, expected):
    # 90 and 10 photographs: 90 : 10, then sqrt(90) : sqrt(10) = 3 : 1, then 1 : 1.
    photos = [replace(photos[0], source="large" if i < 90 else "small") for i in range(100)]
    draw, rng = Draw(photos, power), np.random.default_rng(0)
    drawn = np.array([draw(rng) for _ in range(4000)])
    assert (drawn < 90).mean() == pytest.approx(expected, abs=0.03)
    assert len(set(drawn)) > 95


def test_mosaics_are_masks_of_textures_that_share_the_picture(photos):
    recipe = Recipe(image_size=224, prompts=12, mosaic_share=1, fault_share=0)
    for number in range(5):
        sample = Samples(photos, recipe)[number]
        cells = np.unique(masks_of(sample).reshape(12, -1).astype(int), axis=0)
        assert TILES[0] - 1 <= len(cells) <= TILES[1]  # a cell may be too small to ask for
        assert cells.sum(axis=0).max() == 1
        assert cells.any(axis=0).mean() > 0.95
        assert tuple(sample["shown"]) == (224, 224)


def test_cells_hang_together():
    # The frame may cut a bent cell in two, but not most of them, nor far from its end.
    whole = []
    for seed in range(20):
        numbers = cells(64, 5, np.random.default_rng(seed))
        assert len(np.unique(numbers)) >= 4
        whole += [largest_part(numbers == k).sum() / (numbers == k).sum() for k in np.unique(numbers)]
    assert np.mean(np.array(whole) == 1) > 0.9
    assert min(whole) > 0.6


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_faults_change_a_picture_but_not_beyond_recognition(fault):
    picture = data.astronaut()[::2, ::2]
    spoiled = fault(picture, np.random.default_rng(0))
    assert spoiled.shape == picture.shape and spoiled.dtype == np.uint8
    assert np.abs(spoiled.astype(int) - picture).mean() > 1
    assert np.corrcoef(spoiled.ravel(), picture.ravel())[0, 1] > 0.6


def test_night_is_dark():
    picture = data.astronaut()
    assert night(picture, np.random.default_rng(0)).mean() < 0.6 * picture.mean()


def nested() -> list[np.ndarray]:
    """A whole, a part of it, a copy of the part but for a pixel, and something elsewhere."""
    whole, part, elsewhere = np.zeros((3, 40, 60), bool)
    whole[5:30, 5:40], part[10:20, 10:20], elsewhere[32:38, 42:58] = True, True, True
    copy = part.copy()
    copy[10, 10] = False
    return [whole, part, copy, elsewhere]


def test_a_click_on_a_part_may_mean_the_whole_too():
    whole, part, copy, elsewhere = nested()
    click, rng = np.array([15, 15], np.float32), np.random.default_rng(0)
    assert others_at([whole, part, copy, elsewhere], part, click, rng)[0] is whole
    (other,) = others_at([whole, part, copy, elsewhere], whole, click, rng)
    assert other is part or other is copy
    assert others_at([whole, part, elsewhere], whole, np.array([35, 25], np.float32), rng) == []


def test_other_answers_at_points_end_with_the_picture():
    whole = nested()[0]
    points = np.array([[10, 10], [50, 10], [10, 50], [63, 63]], np.float32) / 64
    assert truth_at([whole], points, 64).tolist() == [[True, False, False, False]]


def test_clicks_have_other_answers_and_boxes_have_none(drawn):
    photo = read_coco(drawn)[0]
    around = np.zeros((photo.height, photo.width), bool)
    around[2:-2, 2:-2] = True
    rle = coco_mask.encode(np.asfortranarray(around.astype(np.uint8)))
    whole = Mask(rle, (2, 2, photo.width - 2, photo.height - 2), int(around.sum()), 99)
    samples = Samples([replace(photo, masks=(*photo.masks, whole))], Recipe(image_size=224, prompts=6, augmented=False))
    sample = samples[0]
    others = (sample["others"] != sample["truth"].astype(bool)[:, None]).any(axis=2)
    is_box = sample["labels"][:, 0] > 1
    assert not others[is_box].any()
    # A click on a part may mean the whole. In the middle of the whole lies no part.
    is_part = masks_of(sample).mean(axis=(1, 2)) < 0.3
    assert others[~is_box & is_part].any(axis=1).all()
