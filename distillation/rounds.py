"""Several rounds of prompting within one step: predict, click where it is wrong, predict again.

Hard prompt sampling (TinySAM, Shu et al. 2023, arXiv:2312.13789, section 3.2): the next prompt is drawn where the
current prediction M' differs from the truth M,

    p ~ uniform{ (x, y) : M'(x, y) != M(x, y) },  positive where M = 1, negative where M = 0

and the earlier prediction goes in as the mask prompt.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tinysam.distillation.recipe import Recipe
from tinysam.distillation.samples import Batch
from tinysam.models.mask_decoder import Decoded
from tinysam.models.prompt_encoder import PIXELS_PER_CELL, filled_boxes
from tinysam.models.variants import get_variant
from tinysam.runtime.labels import NEGATIVE, POSITIVE
from tinysam.runtime.mask_choice import STABILITY_OFFSET, choose_by_scores, looks_at_masks


@dataclass(frozen=True)
class Prompt:
    """What the decoder is asked in one round."""

    coords: Tensor
    """(P, N, 2) x and y in pixels of the input."""
    labels: Tensor
    """(P, N)."""
    mask_input: Tensor | None
    """(P, 1, 4 grid, 4 grid) logits of the round before, or the filled boxes."""
    single: Tensor
    """(P,) bool: whether the prompt is unambiguous (a box, or more than one click)."""
    masked: Tensor | None = None
    """(P,) bool: to which prompts the mask input belongs; None: to all."""


def round_count(recipe: Recipe, step: int) -> int:
    """Further rounds of this step, the same in all processes.

    Geometric with mean `rounds` and at most `max_rounds`, or as often each number from 0 to `max_rounds`.
    """
    rng = np.random.default_rng([recipe.seed, step, 1])
    if recipe.uniform_rounds:
        return int(rng.integers(recipe.max_rounds + 1))
    if recipe.rounds <= 0:
        return 0
    return min(int(rng.geometric(1 / (1 + recipe.rounds))) - 1, recipe.max_rounds)


def chosen_masks(
    decoded: Decoded, single: Tensor, rule: str = "single", tokens: tuple[int, ...] = (0, 1, 2, 3)
) -> Tensor:
    """(P,) place of the mask that a user gets among `tokens`; `rule` is the variant's `mask_choice`."""
    iou, steady = decoded.iou.detach().float().cpu().numpy(), None
    if looks_at_masks(rule):  # on the device: the masks are large
        logits = decoded.low_res_masks.detach()
        inner, outer = ((logits > offset).sum((2, 3)) for offset in (STABILITY_OFFSET, -STABILITY_OFFSET))
        steady = (inner / outer.clamp(min=1)).cpu().numpy()
    chosen = choose_by_scores(rule, tokens, iou, ~single.cpu().numpy(), steady)
    return torch.from_numpy(chosen).to(single.device)


def chosen_logits(decoded: Decoded, single: Tensor, rule: str = "single") -> Tensor:
    """(P, 1, h, w) low-res logits of those masks."""
    chosen = chosen_masks(decoded, single, rule)
    return decoded.low_res_masks[torch.arange(len(chosen), device=chosen.device), chosen][:, None]


def further(prompt: Prompt, decoded: Decoded, batch: Batch, pick: Tensor, hard: bool, rule: str = "single") -> Prompt:
    """The next round's prompt: one more click, and the chosen mask as mask prompt."""
    with torch.no_grad():
        logits, truth = chosen_logits(decoded, prompt.single, rule).float(), unpacked(batch.masks)
        if hard:
            predicted = F.interpolate(logits, truth.shape[-2:], mode="bilinear", align_corners=False).squeeze(1) > 0
            click, label = next_click(predicted, truth, pick)
        else:
            click = draw_true(truth, pick)[:, None].float()
            label = torch.full_like(prompt.labels[:, :1], POSITIVE)
    return Prompt(
        torch.cat([prompt.coords, click], 1),
        torch.cat([prompt.labels, label], 1),
        logits.clamp(-32, 32),
        torch.ones_like(prompt.single),
    )


def unpacked(masks: Tensor) -> Tensor:
    """(P, H, W / 8) uint8 of `Batch.masks` -> (P, H, W) bool."""
    bits = 2 ** torch.arange(7, -1, -1, dtype=torch.uint8, device=masks.device)
    return (masks[..., None] & bits).ne(0).flatten(-2)


def first(batch: Batch, box_masks: float) -> Prompt:
    """The prompts of the batch; a share `box_masks` of the boxes comes with the filled box as mask input."""
    single = batch.labels[:, 0] > POSITIVE
    if box_masks <= 0:
        return Prompt(batch.coords, batch.labels, None, single)
    side = batch.pixels.shape[-1] // PIXELS_PER_CELL
    masked = single & (batch.picks[:, -1] < box_masks)
    return Prompt(batch.coords, batch.labels, filled_boxes(batch.coords, side), single, masked)


def rounds(
    decode: Callable[[Prompt], Decoded], batch: Batch, count: int, recipe: Recipe
) -> Iterator[tuple[Prompt, Decoded]]:
    """First prompt and `count` further ones, each with the decoder's answer."""
    prompt, rule = first(batch, recipe.box_masks), get_variant(recipe.variant).mask_choice
    for i in range(count + 1):
        decoded = decode(prompt)
        yield prompt, decoded
        if i < count:
            prompt = further(prompt, decoded, batch, batch.picks[:, i], recipe.hard_prompts, rule)


def draw_true(mask: Tensor, pick: Tensor) -> Tensor:
    """The floor(pick * count)-th true pixel of each mask.

    Args:
        mask: (P, H, W) bool, each with a true pixel.
        pick: (P,) uniform random numbers in [0, 1).

    Returns:
        (P, 2) x and y.
    """
    width = mask.shape[-1]
    rank = mask.flatten(1).to(torch.int32).cumsum(1, dtype=torch.int32)
    count = rank[:, -1]
    wanted = (pick * count).to(torch.int32).clamp(max=count - 1) + 1
    index = torch.searchsorted(rank, wanted[:, None]).squeeze(1)
    return torch.stack([index % width, index // width], dim=1)


def next_click(predicted: Tensor, truth: Tensor, pick: Tensor) -> tuple[Tensor, Tensor]:
    """A click where the prediction is wrong; on the object where it is right everywhere.

    Args:
        predicted: (P, H, W) bool.
        truth: (P, H, W) bool, each with a true pixel.
        pick: (P,) uniform random numbers in [0, 1).

    Returns:
        (P, 1, 2) float x and y in pixels of the masks, (P, 1) labels.
    """
    wrong = predicted ^ truth
    perfect = ~wrong.flatten(1).any(1)
    wrong = torch.where(perfect[:, None, None], truth, wrong)
    at = draw_true(wrong, pick)
    on_object = truth[torch.arange(len(truth), device=truth.device), at[:, 1], at[:, 0]]
    label = torch.where(on_object, POSITIVE, NEGATIVE)
    return at[:, None].float(), label[:, None]
