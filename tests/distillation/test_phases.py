from pathlib import Path

import pytest

from tinysam.distillation import phases
from tinysam.distillation.cli import parser
from tinysam.distillation.recipe import Recipe, learning_rate


@pytest.fixture
def lines(monkeypatch) -> list[list[str]]:
    """The commands that would run."""
    found: list[list[str]] = []
    monkeypatch.setattr(phases, "run", found.append)
    return found


def test_phases_follow_each_other_and_the_last_one_ends_at_rate_zero(lines, tmp_path):
    options = ["--data", "a", "b", "--val", "v", "--out", str(tmp_path), "--steps", "2000", "--threads", "1"]
    assert phases.main(options) == 0
    *trainings, calibration = lines
    recipes = []
    for line in trainings:
        assert line[1:3] == ["-m", "tinysam.distillation.cli"]
        args = parser().parse_args(line[3:])
        assert (args.data, args.resume, args.threads) == ([Path("a"), Path("b")], True, 1)
        recipes.append(Recipe(**{name: getattr(args, name) for name in Recipe.__dataclass_fields__}))
    assert [(recipe.image_size, recipe.steps) for recipe in recipes] == [(224, 1000), (448, 1800), (448, 2000)]
    assert [recipe.fake_quantization for recipe in recipes] == [False, False, True]
    assert recipes[0].box_masks == 0.8
    first, second, last = recipes
    rates = [learning_rate(first, 999), learning_rate(second, 1799), learning_rate(last, 1800)]
    assert rates == [last.learning_rate] * 3
    assert learning_rate(last, 1999) == pytest.approx(last.learning_rate / 200)
    assert calibration[2] == "tinysam.evaluation.calibrate_iou"
    assert calibration[calibration.index("--data") + 1] == "v"


def test_too_few_steps_are_refused(lines, tmp_path, capsys):
    assert phases.main(["--data", "a", "--val", "v", "--out", str(tmp_path), "--steps", "3"]) == 1
    assert "--steps 3: expected at least 10" in capsys.readouterr().err
    assert lines == []
