import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tinysam.evaluation import calibrate_iou
from tinysam.evaluation.calibrate_iou import CLICKS_OF_MASK_0, HEAD, Answers, fit_lines, fold, tenths
from tinysam.models import build, get_variant


def test_lines_are_found_again_for_the_prompts_that_each_mask_is_used_for():
    rng, answers = np.random.default_rng(0), Answers()
    slope, offset = np.array([0.8, 0.9, 1.1, 0.5]), np.array([0.1, 0.0, -0.1, 0.3])
    for _ in range(3000):
        predicted = rng.uniform(0, 1, 4)
        right, wrong = slope * predicted + offset, rng.uniform(0, 1, 4)
        answers.rows["box"].append((predicted, np.where(np.arange(4) == 0, right, wrong), 0))
        answers.rows["click"].append((predicted, np.where(np.arange(4) == 0, wrong, right), 1))
    np.testing.assert_allclose(fit_lines(answers, "single"), np.stack([slope, offset], 1), atol=0.005)


def test_a_handful_of_masks_moves_the_offset_but_hardly_the_slope():
    answers = Answers()
    for predicted, true in ((0.5, 0.8), (0.6, 0.7)):
        answers.rows["box"].append((np.full(4, predicted), np.full(4, true), 0))
    answers.rows["click"] = answers.rows["box"]
    slope = (1 - 0.005) / (1 + 0.005)
    np.testing.assert_allclose(fit_lines(answers, "single"), [[slope, 0.75 - 0.55 * slope]] * 4)


def test_folded_lines_change_the_predicted_iou_and_nothing_else():
    model = build(get_variant("nano"), 224)
    lines = np.array([[0.8, 0.1], [0.9, 0.0], [1.1, -0.1], [0.5, 0.3]])
    embedding = torch.randn(1, 256, 14, 14, generator=torch.Generator().manual_seed(0))
    prompt = torch.tensor([[[100.0, 80.0]]]), torch.tensor([[1]])
    with torch.no_grad():
        before = model.decode(embedding, *prompt)
        model.load_state_dict(fold(model.state_dict(), lines))
        after = model.decode(embedding, *prompt)
    expected = before.iou * torch.tensor(lines[:, 0]).float() + torch.tensor(lines[:, 1]).float()
    torch.testing.assert_close(after.iou, expected)
    assert torch.equal(after.low_res_masks, before.low_res_masks)


def test_tenths_by_hand():
    found = tenths(np.array([0.12, 0.18, 0.95, 1.2]), np.array([0.2, 0.4, 0.9, 1.0]))
    assert found == [(pytest.approx(0.15), pytest.approx(0.3), 2), (pytest.approx(1.075), pytest.approx(0.95), 2)]


def test_the_command_writes_weights_that_predict_better(drawn, tmp_path, capsys):
    torch.manual_seed(0)
    path = tmp_path / "random.safetensors"
    save_file({name: value.contiguous() for name, value in build(get_variant("nano"), 448).state_dict().items()}, path)
    options = ["--data", drawn, "--check", drawn, "--checkpoint", path, "--out", tmp_path / "out.safetensors"]
    assert calibrate_iou.main([*map(str, options), "--limit", "2", "--threads", "1"]) == 0
    before, after = capsys.readouterr().out.split("\nafter\n")

    def error(text: str) -> float:
        lines = [line.split() for line in text.splitlines() if line.startswith(("box:", "click:"))]
        true, predicted = np.array([[float(words[i].rstrip(",")) for words in lines] for i in (2, 4)])
        return float(np.abs(true - predicted).mean())

    assert error(after) < 0.3 * error(before)  # mask 0 is a compromise between boxes and clicks
    assert HEAD + ".bias" in calibrate_iou.read_state(tmp_path / "out.safetensors")


def test_mask_0_is_fitted_on_clicks_too_where_it_answers_them() -> None:
    rng = np.random.default_rng(2)
    answers = Answers()
    for kind, worse in (("box", 0.0), ("click", 0.1)):
        predicted = rng.uniform(0.2, 1.0, (600, 4))
        answers.rows[kind] = [(row, row - worse, 0) for row in predicted]
    boxes, both = (fit_lines(answers, rule)[0] for rule in ("single", "steady"))
    np.testing.assert_allclose(boxes, [1, 0], atol=1e-9)
    assert both[0] == pytest.approx(1, abs=0.02)
    assert both.sum() - boxes.sum() == pytest.approx(-0.1 * CLICKS_OF_MASK_0 / (1 + CLICKS_OF_MASK_0), abs=0.01)
