from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.datasets.drawing import blob
from tinysam.distillation.objectives import answer
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.rounds import (
    Prompt,
    chosen_logits,
    chosen_masks,
    draw_true,
    first,
    next_click,
    round_count,
    rounds,
    unpacked,
)
from tinysam.distillation.samples import Batch
from tinysam.models import build, get_variant
from tinysam.models.mask_decoder import Decoded
from tinysam.models.prompt_encoder import filled_boxes
from tinysam.runtime.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT
from tinysam.runtime.mask_choice import choose_mask
from tinysam.runtime.prompts import filled_boxes as runtime_filled_boxes


def batch_of(truth: torch.Tensor) -> Batch:
    prompts = len(truth)
    empty, pixels = torch.zeros(0), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    coords = torch.tensor([[[5.0, 5.0], [0.0, 0.0]], [[4.0, 4.0], [20.0, 20.0]]])
    labels = torch.tensor([[1, -1], [2, 3]])
    picks = torch.rand(prompts, 9, generator=torch.Generator().manual_seed(0))
    packed = torch.from_numpy(np.packbits(truth.numpy(), axis=-1))
    return Batch(pixels, empty, empty, masks=packed, coords=coords, labels=labels, picks=picks)


def decoded(masks: torch.Tensor) -> Decoded:
    return Decoded(masks, torch.tensor([[0.0, 0.1, 0.9, 0.2]] * len(masks)), torch.zeros(len(masks), 5, 8))


def test_the_number_of_rounds_is_geometric_and_the_same_in_every_process():
    recipe = Recipe(rounds=1.5, max_rounds=9)
    counts = [round_count(recipe, step) for step in range(3000)]
    assert counts == [round_count(recipe, step) for step in range(3000)]
    assert max(counts) == 9
    assert np.isclose(np.mean(counts), 1.5, atol=0.15)
    assert np.isclose(np.mean([c == 0 for c in counts]), 0.4, atol=0.04)


def test_no_rounds_when_none_are_asked_for():
    assert {round_count(Recipe(rounds=0), step) for step in range(50)} == {0}


def test_the_number_of_rounds_is_any_from_0_to_9_alike_on_demand():
    recipe = Recipe(uniform_rounds=True)
    counts = np.bincount([round_count(recipe, step) for step in range(3000)])
    assert len(counts) == 10
    assert np.allclose(counts / 3000, 0.1, atol=0.03)


def test_a_click_goes_on_with_the_mask_it_trusts_most_and_a_box_with_mask_0():
    masks = torch.arange(4.0)[None, :, None, None].expand(2, 4, 3, 3)
    logits = chosen_logits(decoded(masks), torch.tensor([False, True]))
    assert logits[:, 0, 0, 0].tolist() == [2, 0]


@pytest.mark.parametrize("rule", ["single", "best", "steady", "stability"])
def test_the_mask_is_the_one_that_the_runtime_chooses(rule):
    generator = torch.Generator().manual_seed(3)
    masks = 4 * torch.randn(40, 4, 6, 6, generator=generator) * torch.rand(40, 4, 1, 1, generator=generator)
    answer = Decoded(masks, torch.rand(40, 4, generator=generator), torch.zeros(40, 5, 8))
    single = torch.arange(40) % 2 == 0
    expected = choose_mask(rule, (0, 1, 2, 3), answer.iou.numpy(), ~single.numpy(), masks.numpy())
    assert len(set(expected)) == (3 if rule == "best" else 4)
    assert chosen_masks(answer, single, rule).tolist() == expected.tolist()


def test_masks_are_unpacked_as_numpy_packs_them():
    masks = np.random.default_rng(0).random((3, 16, 24)) < 0.4
    assert np.array_equal(unpacked(torch.from_numpy(np.packbits(masks, axis=-1))).numpy(), masks)


def test_further_rounds_add_a_click_on_the_mistake_and_the_mask_before():
    truth = torch.zeros(2, 32, 32, dtype=torch.bool)
    truth[:, 4:20, 4:20] = True
    asked: list[Prompt] = []

    def decode(prompt: Prompt) -> Decoded:
        asked.append(prompt)
        masks = torch.full((2, 4, 8, 8), -3.0)
        masks[:, :, 1:5, 5:8] = 3.0
        return decoded(masks)

    steps = list(rounds(decode, batch_of(truth), 2, Recipe()))
    assert len(steps) == 3
    assert [prompt.coords.shape[1] for prompt in asked] == [2, 3, 4]
    assert asked[0].mask_input is None
    assert asked[0].single.tolist() == [False, True]
    assert asked[1].single.all()
    assert asked[1].mask_input.shape == (2, 1, 8, 8)
    predicted = torch.nn.functional.interpolate(asked[1].mask_input, (32, 32), mode="bilinear")[:, 0] > 0
    for p in range(2):
        x, y = asked[2].coords[p, 2].long()
        assert predicted[p, y, x] != truth[p, y, x]
        assert bool(asked[2].labels[p, 2]) == bool(truth[p, y, x])


def test_easy_rounds_click_anywhere_on_the_object():
    truth = torch.zeros(2, 32, 32, dtype=torch.bool)
    truth[:, 4:20, 4:20] = True
    masks = torch.full((2, 4, 8, 8), -3.0)
    (_, _), (prompt, _) = rounds(lambda _: decoded(masks), batch_of(truth), 1, Recipe(hard_prompts=False))
    assert prompt.labels[:, 2].tolist() == [1, 1]
    x, y = prompt.coords[:, 2].long().unbind(1)
    assert truth[torch.arange(2), y, x].all()


def test_filled_boxes_are_those_of_the_runtime():
    generator = torch.Generator().manual_seed(0)
    corners = (torch.rand(5, 2, 2, generator=generator) * 64).sort(1).values
    labels = np.tile([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], (5, 1))
    expected = runtime_filled_boxes(corners.numpy(), labels, 16)
    np.testing.assert_allclose(filled_boxes(corners, 16).numpy(), expected, atol=1e-5)


def test_only_boxes_come_with_a_filled_mask_and_the_share_of_them_that_was_asked_for():
    truth = torch.ones(2, 32, 32, dtype=torch.bool)
    assert first(batch_of(truth), 0.0).mask_input is None
    prompt = first(batch_of(truth), 1.0)
    assert prompt.masked.tolist() == [False, True]
    assert (prompt.mask_input[1, 0, 1:5, 1:5] == 8).all()
    assert (prompt.mask_input[1, 0, 5:] == -8).all()


def test_prompts_without_a_mask_are_answered_as_if_nobody_had_one():
    model = build(get_variant("nano"), 224).eval()
    truth = torch.ones(2, 32, 32, dtype=torch.bool)
    prompt = first(replace(batch_of(truth), pixels=torch.zeros(1, 3, 224, 224)), 1.0)
    embeddings = torch.randn(1, 256, 14, 14, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    mixed = answer(model, embeddings, prompt)
    click = model.decode(embeddings[:1], prompt.coords[:1], prompt.labels[:1])
    box = model.decode(embeddings[:1], prompt.coords[1:], prompt.labels[1:], prompt.mask_input[1:])
    torch.testing.assert_close(mixed.low_res_masks[:1], click.low_res_masks, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed.low_res_masks[1:], box.low_res_masks, atol=1e-4, rtol=1e-4)


def test_draw_true_reaches_every_true_pixel_and_no_other():
    mask = torch.zeros(1, 5, 7, dtype=torch.bool)
    mask[0, 1, 2] = mask[0, 3, 6] = mask[0, 4, 0] = True
    at = draw_true(mask.expand(3, -1, -1), torch.tensor([0.0, 0.5, 0.999999]))
    assert at.tolist() == [[2, 1], [6, 3], [0, 4]]


@pytest.mark.parametrize("seed", range(5))
def test_next_click_lies_where_prediction_and_truth_differ(seed):
    truth, predicted = torch.from_numpy(np.stack([blob(seed)] * 50)), torch.from_numpy(np.stack([blob(seed + 9)] * 50))
    coords, labels = next_click(predicted, truth, torch.linspace(0, 0.999, 50))
    x, y = coords[:, 0].long().unbind(1)
    rows = torch.arange(50)
    assert (predicted[rows, y, x] != truth[rows, y, x]).all()
    assert (labels[:, 0].bool() == truth[rows, y, x]).all()
    possible = truth[0][predicted[0] ^ truth[0]].unique().long().tolist()
    assert sorted(set(labels[:, 0].tolist())) == possible


def test_next_click_of_a_perfect_mask_lies_on_the_object():
    truth = torch.from_numpy(blob(1))[None]
    coords, labels = next_click(truth, truth, torch.tensor([0.3]))
    x, y = coords[0, 0].long()
    assert truth[0, y, x]
    assert labels.item() == 1
