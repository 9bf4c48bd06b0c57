from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tinysam.datasets.coco import DataError
from tinysam.distillation.augment import View, paste
from tinysam.distillation.making import whole_pixels
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.samples import Draw, Numbers, Samples, collate


def test_the_same_number_gives_the_same_sample(photos, recipe):
    one, other = Samples(photos, recipe)[5], Samples(photos, recipe)[5]
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not np.array_equal(one["pixels"], Samples(photos, recipe)[6]["pixels"])


def test_masks_stay_on_their_objects_through_crops_and_flips(photos):
    recipe = Recipe(image_size=224, prompts=2, paste_share=0, colour=0, whole_share=0.2)
    checked = 0
    for number in range(30):
        sample = Samples(photos, recipe)[number]
        for mask in sample["masks"]:
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


def test_pasting_hides_what_lies_below():
    canvas = np.zeros((10, 10, 3), np.uint8)
    below = np.ones((10, 10), bool)
    shape = np.ones((4, 4), bool)
    shape[0, 0] = False
    thing = np.full((4, 4, 3), 200, np.uint8)
    placed = paste(canvas, [below], thing, shape, np.random.default_rng(0))
    assert placed.sum() == 15
    assert (canvas[placed] == 200).all()
    assert not (below & placed).any()
    assert below.sum() == 85


def test_a_thing_larger_than_the_canvas_is_not_pasted():
    canvas = np.zeros((10, 10, 3), np.uint8)
    thing = np.zeros((4, 12, 3), np.uint8)
    assert paste(canvas, [], thing, np.ones((4, 12), bool), np.random.default_rng(0)) is None


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
