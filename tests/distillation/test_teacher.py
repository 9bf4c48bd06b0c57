from pathlib import Path

import numpy as np
import pytest
import torch

from tinysam.distillation.device import Device
from tinysam.distillation.objectives import Decoupled, FullStage
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.samples import Samples, collate
from tinysam.distillation.teacher import TeacherCache, TeacherError, check_embedding, copy_decoder, load_teacher
from tinysam.distillation.training_log import Tally
from tinysam.models import build, get_variant


@pytest.fixture
def teacher():
    return load_teacher("nano", None, 224, "cpu")


@pytest.fixture
def batch(photos):
    recipe = Recipe(image_size=224, prompts=2, batch=2, augmented=False)
    return collate([Samples(photos, recipe)[i] for i in range(2)])


def test_a_student_equal_to_its_teacher_has_no_decoupled_loss(teacher, batch):
    student = load_teacher("nano", None, 224, "cpu")
    objective = Decoupled(Device(), teacher)
    assert objective(student, batch, 0, Tally()).item() == 0
    with torch.no_grad():
        student.image_encoder.neck[3].bias += 2
    assert objective(student, batch, 0, Tally()).item() == pytest.approx(4, rel=1e-4)


def test_full_stage_pulls_the_student_towards_the_teacher(teacher, batch):
    torch.manual_seed(0)
    student = build(get_variant("nano"), 224).train()
    recipe = Recipe(mode="full-stage", image_size=224, prompts=2, batch=2, rounds=1.0, hard_mask_weighting=True)
    objective = FullStage(recipe, Device(), teacher)
    tally = Tally(steps=1, seconds=1)
    before = {name: p.detach().clone() for name, p in teacher.named_parameters()}
    far = objective(student, batch, 0, tally)
    far.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in student.image_encoder.parameters())
    near = objective(load_teacher("nano", None, 224, "cpu"), batch, 0, tally)
    assert near.item() < far.item()
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in teacher.named_parameters())
    assert tally.iou["box"][1] + tally.iou["click"][1] == 8


def test_a_vit_teacher_of_another_input_size_is_refused():
    with pytest.raises(TeacherError, match=r"64 x 64, the student at 448 of 28 x 28: train with --image-size 1024"):
        load_teacher("sam_vit_b", None, 448, "cpu")


def test_embeddings_of_other_shapes_are_refused():
    with pytest.raises(TeacherError, match=r"\(256, 8, 8\), the student's \(256, 4, 4\)"):
        check_embedding(torch.zeros(1, 256, 4, 4), torch.zeros(1, 256, 8, 8))


def test_decoupled_copies_and_freezes_the_decoder(teacher):
    student = build(get_variant("nano"), 224)
    copy_decoder(student, teacher)
    for name, value in teacher.mask_decoder.state_dict().items():
        assert torch.equal(student.mask_decoder.state_dict()[name], value)
    trained = [name for name, p in student.named_parameters() if p.requires_grad]
    assert trained
    assert all(name.startswith("image_encoder.") for name in trained)


def test_a_decoder_of_another_size_is_refused(teacher):
    with pytest.raises(TeacherError, match="does not fit the student"):
        copy_decoder(build(get_variant("tinysam"), 224), teacher)


def test_cached_embeddings_are_the_teachers_in_half_precision(teacher, photos, batch, tmp_path):
    from tinysam.distillation.device import images

    cache = TeacherCache(tmp_path, teacher, "abc", photos)
    indexes = batch.indexes.tolist()
    cached = cache.embeddings(indexes)
    with torch.no_grad():
        direct = teacher.encode(images(batch))
    assert torch.equal(cached, cached.half().float())
    assert torch.allclose(cached, direct, atol=2e-3, rtol=2e-3)
    computed = cache.computed
    again = TeacherCache(tmp_path, teacher, "abc", photos)
    assert torch.equal(again.embeddings(indexes), cached)
    assert again.computed == 0 < computed


def test_a_damaged_cache_entry_is_computed_again(teacher, photos, tmp_path):
    cache = TeacherCache(tmp_path, teacher, "abc", photos)
    good = cache.embedding(0)
    path: Path = next(tmp_path.glob("*.npy"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)
    again = TeacherCache(tmp_path, teacher, "abc", photos)
    assert np.array_equal(again.embedding(0), good)
    assert again.computed == 1


def test_another_teacher_does_not_use_the_cache_of_the_first(teacher, photos, tmp_path):
    TeacherCache(tmp_path, teacher, "abc", photos).embedding(0)
    other = TeacherCache(tmp_path, teacher, "def", photos)
    other.embedding(0)
    assert other.computed == 1
