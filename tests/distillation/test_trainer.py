import math
import os
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from tinysam.distillation.checkpoints import ResumeError, load_state, save_state
from tinysam.distillation.device import Device, compile_model
from tinysam.distillation.objectives import Supervised
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.samples import Numbers, Samples, loader
from tinysam.distillation.trainer import Average, Diverged, Trainer
from tinysam.distillation.training_log import read_rows
from tinysam.models import build, get_variant
from tinysam.models.checkpoint import load_state as load_weights
from tinysam.models.checkpoint import read_state
from tinysam.runtime.atomic import write_atomically


def trainer(recipe: Recipe, folder: Path) -> Trainer:
    torch.manual_seed(0)
    device = Device()
    return Trainer(build(get_variant("nano"), 224), Supervised(recipe, device), recipe, device, folder, minutes=0)


def batches(photos, recipe, start=0):
    return iter(loader(Samples(photos, recipe), Numbers(recipe, start), workers=0))


def test_a_stopped_run_continues_bit_for_bit(photos, recipe, tmp_path):
    through = trainer(recipe, tmp_path / "through")
    rows = list(through.run(batches(photos, recipe), every=1))

    stopped = trainer(recipe, tmp_path / "stopped")
    run = stopped.run(batches(photos, recipe), every=1)
    next(run)
    next(run)
    run.close()
    # The checkpoint of step 1 is on disk; step 2 was logged but not saved, as after a kill.
    resumed = trainer(recipe, tmp_path / "stopped")
    resumed.resume(load_state(tmp_path / "stopped", recipe, 1))
    assert resumed.step == 1
    list(resumed.run(batches(photos, recipe, resumed.step), every=1))

    for name, value in through.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for name, value in through.average.state.items():
        assert torch.equal(value, resumed.average.state[name]), name
    logged = read_rows(tmp_path / "stopped" / "log.csv")
    assert [int(row["step"]) for row in logged] == [1, 2, 3]
    assert [float(row["loss"]) for row in logged] == pytest.approx([row["loss"] for row in rows], rel=1e-5)


def test_compiled_parts_train_to_the_same_weights_under_the_same_names(photos, recipe, tmp_path):
    plain, compiled = (trainer(recipe, tmp_path / name) for name in ("plain", "compiled"))
    compile_model(compiled.model, backend="aot_eager")
    for run in (plain, compiled):
        list(run.run(batches(photos, recipe)))
    assert plain.model.state_dict().keys() == compiled.model.state_dict().keys()
    for name, value in plain.model.state_dict().items():
        assert torch.allclose(value, compiled.model.state_dict()[name], atol=1e-4), name


def test_a_run_leaves_weights_that_the_models_load_and_a_picture(photos, recipe, tmp_path):
    run = trainer(recipe, tmp_path)
    before = run.model.mask_decoder.mask_tokens.weight.detach().clone()
    list(run.run(batches(photos, recipe)))
    model = build(get_variant("nano"), 448)
    load_weights(model, read_state(tmp_path / "weights.safetensors"), "weights")
    assert not torch.equal(run.model.mask_decoder.mask_tokens.weight, before)
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_training_on_one_picture_lowers_the_loss(photos, tmp_path):
    recipe = Recipe(image_size=224, batch=2, prompts=4, steps=12, decay_steps=0, warmup=2, rounds=0, augmented=False)
    rows = list(trainer(recipe, tmp_path).run(batches(photos[:1], recipe), every=3))
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(photos, recipe, tmp_path):
    run = trainer(recipe, tmp_path)
    with torch.no_grad():
        run.model.mask_decoder.mask_tokens.weight.fill_(math.nan)
    with pytest.raises(Diverged, match="loss of step 0 is not finite"):
        list(run.run(batches(photos, recipe)))
    kept = torch.load(tmp_path / "batch-0-rank-0.pt", weights_only=True)
    assert kept["pixels"].shape == (2, 3, 224, 224)


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(photos, recipe, tmp_path):
    run = trainer(recipe, tmp_path)
    run.objective = lambda model, *_: sum((p - p.detach()).abs().sqrt().sum() for p in model.parameters())
    with pytest.raises(Diverged, match="gradient of step 0 is not finite"):
        list(run.run(batches(photos, recipe)))
    assert (tmp_path / "batch-0-rank-0.pt").exists()
    assert all(bool(p.isfinite().all()) for p in run.model.parameters())


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Files cannot grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_previous_checkpoint(photos, recipe, tmp_path):
    saved(photos, recipe, tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    longer = Recipe.from_dict({**recipe.to_dict(), "steps": 4})
    run = trainer(longer, tmp_path)
    run.resume(load_state(tmp_path, longer, 1))
    with room_for(len(before) // 2), pytest.raises(OSError, match="File too large"):
        list(run.run(batches(photos, longer, run.step)))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))
    assert load_state(tmp_path, longer, 1).step == 1


def test_two_processes_may_write_the_same_file(tmp_path, monkeypatch):
    path, sync = tmp_path / "entry.npy", os.fsync

    def meanwhile(handle: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        write_atomically(path, b"of the other")
        sync(handle)

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_atomically(path, b"mine")
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def saved(photos, recipe, folder):
    run = trainer(recipe, folder).run(batches(photos, recipe), every=1)
    next(run)
    next(run)
    run.close()


def test_resume_refuses_another_number_of_processes_and_other_settings(photos, recipe, tmp_path):
    saved(photos, recipe, tmp_path)
    with pytest.raises(ResumeError, match="made by 1 processes, not 2"):
        load_state(tmp_path, recipe, 2)
    with pytest.raises(ResumeError, match="seed 0 -> 5"):
        load_state(tmp_path, Recipe.from_dict({**recipe.to_dict(), "seed": 5}), 1)
    longer = Recipe.from_dict({**recipe.to_dict(), "steps": 50})
    assert load_state(tmp_path, longer, 1).step == 1


def test_resume_refuses_another_teacher(photos, recipe, tmp_path):
    run = trainer(recipe, tmp_path)
    run.teacher = "tinysam 1234"
    save_state(tmp_path, run.state())
    with pytest.raises(ResumeError, match="learned from tinysam 1234, not from no teacher"):
        load_state(tmp_path, recipe, 1)
    assert load_state(tmp_path, recipe, 1, "tinysam 1234").step == 0


def test_resume_refuses_a_damaged_file_and_runs_nothing_in_it(tmp_path, recipe):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    (tmp_path / "checkpoint.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ResumeError, match="cannot be continued"):
        load_state(tmp_path, recipe, 1)
    assert not (tmp_path / "exploded").exists()


def test_the_average_matches_hand_arithmetic():
    model = nn.BatchNorm1d(1)
    average = Average(model, decay=0.2)
    with torch.no_grad():
        model.weight.fill_(3.0)
    model.num_batches_tracked += 5
    average.update(model, 0)
    # Warming up: decay 1 / 10, from 1 to 0.1 * 1 + 0.9 * 3.
    assert average.state["weight"].item() == pytest.approx(2.8)
    assert average.state["num_batches_tracked"].item() == 5
    average.update(model, 1000)
    assert average.state["weight"].item() == pytest.approx(0.2 * 2.8 + 0.8 * 3)
