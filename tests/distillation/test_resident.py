from itertools import islice

import pytest
import torch

from tinysam.datasets.coco import DataError
from tinysam.distillation import resident
from tinysam.distillation.device import Device
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.resident import Resident, bytes_of, fits
from tinysam.distillation.samples import Numbers, Samples, loader

RECIPE = Recipe(mode="decoupled", image_size=224, batch=2, steps=6, decay_steps=1, augmented=False)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_batches_are_those_of_the_loader(photos, workers):
    mine = Resident(Samples(photos, RECIPE), Numbers(RECIPE, 1), Device(), workers)
    theirs = loader(Samples(photos, RECIPE), Numbers(RECIPE, 1), workers=0)
    count = 0
    for one, other in zip(mine, theirs, strict=True):
        assert all(torch.equal(value, vars(other)[name]) for name, value in vars(one).items())
        count += 1
    assert count == 5


def test_every_photograph_is_read_once(photos, monkeypatch):
    samples, read = Samples(photos, RECIPE), []
    whole = samples.maker.whole
    monkeypatch.setattr(samples.maker, "whole", lambda index, photo: read.append(index) or whole(index, photo))
    monkeypatch.setattr(resident, "PIECE", 3)
    assert len(list(Resident(samples, Numbers(RECIPE, 0), Device()))) == 6
    assert read == [0, 1, 2, 3]


def test_damaged_photographs_are_passed_over_as_the_loader_does(photos):
    photos[1].path.write_bytes(b"no picture")
    mine = Resident(Samples(photos, RECIPE), Numbers(RECIPE, 0), Device())
    theirs = loader(Samples(photos, RECIPE), Numbers(RECIPE, 0), workers=0)
    assert [b.indexes.tolist() for b in mine] == [b.indexes.tolist() for b in theirs]
    assert len(mine.samples.faults.seen) == 1


def test_too_many_damaged_photographs_end_the_run(photos):
    for photo in photos:
        photo.path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="more than 2 damaged"):
        Resident(Samples(photos, RECIPE, limit=2), Numbers(RECIPE, 0), Device())
    with pytest.raises(DataError, match="nothing usable"):
        Resident(Samples(photos, RECIPE), Numbers(RECIPE, 0), Device())


def test_a_set_stays_on_a_gpu_when_it_fits_in_half_of_its_free_memory(monkeypatch):
    needed = 10 * (3 * 224 * 224 + 2 * 256 * 14 * 14)
    assert bytes_of(10, 224) == needed
    monkeypatch.setattr(Device, "free_bytes", lambda self: 2 * needed + 1)
    assert fits(RECIPE, 10, Device("cuda"))
    assert not fits(RECIPE, 11, Device("cuda"))
    assert not fits(Recipe(image_size=224), 10, Device("cuda"))


def test_nothing_is_copied_on_a_processor(photos):
    assert not fits(RECIPE, 1, Device("cpu"))


def test_samples_of_mode_decoupled_need_no_masks(photos):
    recipe = Recipe(mode="decoupled", image_size=224, batch=2)
    batch = next(islice(loader(Samples(photos, recipe), Numbers(recipe, 0), workers=0), 1))
    assert batch.pixels.shape == (2, 3, 224, 224)
    assert batch.masks.numel() == 0
