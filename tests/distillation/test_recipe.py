import pytest

from tinysam.distillation.recipe import Recipe, learning_rate


def test_the_rate_warms_up_stays_and_falls_to_zero():
    recipe = Recipe(learning_rate=1.0, warmup=10, steps=100, decay_steps=20)
    assert learning_rate(recipe, 0) == pytest.approx(0.1)
    assert learning_rate(recipe, 9) == learning_rate(recipe, 50) == learning_rate(recipe, 80) == 1
    assert learning_rate(recipe, 90) == pytest.approx(0.5)
    assert learning_rate(recipe, 99) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "magic"}, "unknown mode 'magic'"),
        ({"batch": 0}, "batch 0: expected at least 1"),
        ({"box_share": 1.5}, "box_share 1.5: expected 0 to 1"),
        ({"smallest_crop": 0.0}, "smallest_crop"),
        ({"max_rounds": 0}, "max_rounds 0: expected at least 1"),
        ({"warmup": -1}, "warmup -1: expected at least 0"),
        ({"learning_rate": float("nan")}, "learning_rate nan: expected more than 0"),
        ({"hard_mask_weighting": True}, "mode full-stage, not supervised"),
        ({"steps": 5, "decay_steps": 6}, "decay_steps 6 is more than steps 5"),
    ],
)
def test_senseless_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**values)


def test_settings_of_another_version_are_named():
    with pytest.raises(ValueError, match="unknown settings spice"):
        Recipe.from_dict({"spice": 1})


def test_a_recipe_survives_its_dictionary():
    recipe = Recipe(seed=7, mode="full-stage")
    assert Recipe.from_dict(recipe.to_dict()) == recipe
