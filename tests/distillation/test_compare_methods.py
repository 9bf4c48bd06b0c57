"""The comparison of training methods."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.datasets.drawing import draw
from tinysam.distillation import compare_methods
from tinysam.models import get_variant
from tinysam.models.checkpoint import weights_path

BRIEF = ("--steps", "1", "--decay-steps", "0", "--batch", "1", "--prompts", "1", "--workers", "0")


@pytest.fixture
def plan(tmp_path: Path) -> compare_methods.Plan:
    draw(tmp_path / "drawn", 2)
    return compare_methods.Plan(
        tmp_path / "drawn", tmp_path / "drawn", tmp_path / "out", "nano", 224, None, 1, 1, 1, BRIEF
    )


def test_the_student_starts_with_the_teachers_decoder_and_an_encoder_of_its_seed(plan):
    first, second = (load_file(compare_methods.write_new(plan, seed)) for seed in (0, 1))
    teacher = load_file(weights_path(get_variant("nano"), None))
    decoder = [name for name in teacher if not name.startswith("image_encoder.")]
    weights = [name for name in teacher if name.startswith("image_encoder.") and teacher[name].ndim > 1]
    assert all((first[name] == teacher[name].float()).all() for name in decoder)
    assert not any((first[name] == second[name]).all() for name in weights if "attention_biases" not in name)


def test_a_run_trains_and_measures_once(plan, capfd):
    found = compare_methods.train_and_measure(plan, "decoupled", 0)
    assert set(found) == set(compare_methods.PROMPTS) and all(0 <= value <= 1 for value in found.values())
    decoder = "mask_decoder.iou_token.weight"
    teacher = load_file(weights_path(get_variant("nano"), None))
    assert (load_file(plan.folder("decoupled", 0) / compare_methods.WEIGHTS)[decoder] == teacher[decoder]).all()
    new, start = (load_file(path) for path in (compare_methods.write_new(plan, 0), compare_methods.student(plan, 0)))
    assert not (new["image_encoder.neck.0.weight"] == start["image_encoder.neck.0.weight"].float()).all()
    capfd.readouterr()
    assert compare_methods.train_and_measure(plan, "decoupled", 0) == found
    assert capfd.readouterr().out == ""


def test_without_steps_of_its_own_the_student_is_new(plan):
    plan = replace(plan, student_steps=0)
    assert compare_methods.student(plan, 0) == compare_methods.write_new(plan, 0)


def test_table_gives_mean_and_half_range():
    rows = [{"box": 0.1, "click_1": 0.5, "click_3": 0.7}, {"box": 0.3, "click_1": 0.5, "click_3": 0.6}]
    line = compare_methods.table({"decoupled": rows}).splitlines()[-1]
    assert line == "| decoupled | 0.200 ± 0.100 | 0.500 ± 0.000 | 0.650 ± 0.050 |"


def test_a_command_that_fails_is_named(tmp_path, capfd):
    folders = ["--data", str(tmp_path), "--val", str(tmp_path), "--out", str(tmp_path / "out")]
    code = compare_methods.main([*folders, "--seeds", "0"])
    assert code == 1
    assert "compare_methods: tinysam.distillation.cli ended with exit code 1" in capfd.readouterr().err
