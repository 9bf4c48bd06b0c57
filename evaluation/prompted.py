"""IoU of masks from box prompts and clicks, for every annotated mask of a photograph."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinysam.datasets.coco import Mask
from tinysam.datasets.prompts import centre, next_click
from tinysam.runtime.mask_choice import ambiguous_masks, choose_mask
from tinysam.runtime.masks.clean import clean_masks
from tinysam.runtime.prompts import ObjectPrompt, Prompts
from tinysam.runtime.segmenter import Segmenter
from tinysam.runtime.upscale import Upscaler
from tinysam.runtime.zoom import Answer, Looks, Views

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

CLICKS = (1, 3, 5)
"""Numbers of clicks at which the IoU is reported."""
PROMPTS_AT_ONCE = 16
"""Prompts decoded together; bounds the memory of photographs with hundreds of masks."""
MOST_PIXELS = 1 << 25
"""Pixels of full-size masks that are held as logits at the same time."""


@dataclass(frozen=True)
class Protocol:
    """Which prompts are given."""

    box: bool = True
    clicks: tuple[int, ...] = CLICKS
    zoom_in: bool = True
    """Whether objects are looked at closer, by the manifest's `zoom_in`, as `tinysam-run` does."""

    def names(self) -> list[str]:
        """Names of the prompts as they are reported."""
        return ["box"] * self.box + [f"click_{n}" for n in self.clicks]


@dataclass(frozen=True)
class Answers:
    """Masks of P prompts at the photograph's size, and their low-res logits."""

    tokens: tuple[int, ...]
    """Which mask tokens the axis M holds."""
    masks: Bools
    """(P, M, height, width)."""
    low_res: Floats
    """(P, M, 4 grid, 4 grid)."""
    predicted: Floats
    """(P, M) predicted IoU."""
    chosen: NDArray[np.intp]
    """(P,) place of the mask that a user gets."""
    shown: Bools
    """(P, height, width) that mask, without small islands and holes."""


def iou(masks: Bools, truth: Bools) -> NDArray[np.float64]:
    """IoU over the last two axes, which broadcast; 0 where both are empty."""
    both = np.logical_and(masks, truth).sum(axis=(-2, -1))
    either = np.logical_or(masks, truth).sum(axis=(-2, -1))
    return np.asarray(both / np.maximum(either, 1), np.float64)


def full_size(upscaler: Upscaler, low_res: Floats) -> Bools:
    """(..., side, side) logits -> (..., height, width) masks; plain products are faster for small photographs."""
    height, width = upscaler.size
    if low_res[..., 0, 0].size * height * width > MOST_PIXELS:
        return upscaler.masks(low_res)
    masks: Bools = upscaler.logits(low_res) > 0
    return masks


def decode(segmenter: Segmenter, prompts: Prompts) -> Answers:
    """Every mask the model has for these prompts of the image that is set."""
    low_res, predicted = segmenter.graphs.decode(segmenter.features, prompts)
    manifest, frame = segmenter.manifest, segmenter.frame
    masks = full_size(frame.upscaler, low_res)
    chosen = choose_mask(manifest.mask_choice, manifest.mask_tokens, predicted, prompts.ambiguous, low_res)
    rows = np.arange(len(chosen))
    taken, shown = low_res[rows, chosen], masks[rows, chosen]
    cleaned = clean_masks(taken, manifest.cleaning, frame.low_res_size)
    if cleaned is not taken:
        shown = full_size(frame.upscaler, cleaned)
    return Answers(manifest.mask_tokens, masks, low_res, predicted, chosen, shown)


@dataclass(frozen=True)
class Final:
    """What a user gets for P prompts, after looking closer."""

    masks: Bools
    """(P, height, width)."""
    predicted: Floats
    """(P,) predicted IoU."""


def scores(answers: Answers, truth: Bools, name: str, final: Final) -> list[dict[str, float]]:
    """For each prompt the IoU of what a user gets and its predicted IoU, and the IoU of masks of one look.

    These are what a user gets from one look at the whole photograph (`_whole`), the same before cleaning, the best of
    three, and mask 0.

    Args:
        answers: of one look at the whole photograph.
        truth: (P, height, width).
        name: of the prompt in the report.
        final: what a user gets.
    """
    values = iou(answers.masks, truth[:, None])
    rows, chosen = np.arange(len(values)), answers.chosen
    columns = {
        name: iou(final.masks, truth),
        f"{name}_predicted": final.predicted,
        f"{name}_whole": iou(answers.shown, truth),
        f"{name}_raw": values[rows, chosen],
        f"{name}_best": values[:, ambiguous_masks(answers.tokens)].max(axis=1),
    }
    if 0 in answers.tokens:
        columns[f"{name}_single"] = values[:, answers.tokens.index(0)]
    return [{key: float(column[p]) for key, column in columns.items()} for p in rows]


def box_scores(looks: Looks, masks: Sequence[Mask], truth: Bools) -> list[dict[str, float]]:
    """Prompts are the exact boxes of the masks."""
    boxes = [mask.box for mask in masks]
    answers = decode(looks.whole, looks.whole.prompts(boxes=np.array(boxes)))
    return scores(answers, truth, "box", drawn(looks, [looks.answer(ObjectPrompt(box=box)) for box in boxes]))


def click_scores(looks: Looks, truth: Bools, counts: Sequence[int]) -> list[dict[str, float]]:
    """Prompts are 1 to max(counts) clicks.

    The first is in the middle of the object, each further one in the middle of the largest wrong part of what a user
    gets; the chosen mask of the round before goes in as mask prompt.
    """
    found: list[dict[str, float]] = [{} for _ in truth]
    points = [[(*centre(mask), 1)] for mask in truth]
    previous: Floats | None = None
    for n in range(1, max(counts) + 1):
        at = np.array(points)
        answers = decode(looks.whole, looks.whole.prompts(at[..., :2], at[..., 2], mask_input=previous))
        shown = drawn(looks, [looks.closer(*asked) for asked in zip(points, firsts(looks, answers), strict=True)])
        if n in counts:
            for row, new in zip(found, scores(answers, truth, f"click_{n}", shown), strict=True):
                row.update(new)
        if n == max(counts):
            break
        previous = answers.low_res[np.arange(len(truth)), answers.chosen][:, None]
        for p, current in enumerate(shown.masks):
            click = next_click(current, truth[p])
            points[p].append((*click[0], click[1]) if click else points[p][-1])
    return found


def firsts(looks: Looks, answers: Answers) -> list[Answer]:
    """The chosen masks as what a closer look begins with."""
    taken = zip(answers.low_res, answers.predicted, answers.chosen, strict=True)
    return [Answer(masks[k], float(predicted[k]), looks.whole.frame) for masks, predicted, k in taken]


def drawn(looks: Looks, answers: Sequence[Answer]) -> Final:
    """What a user gets of answers."""
    masks = [answer.rle(looks.cleaned(answer), looks.size).decode() for answer in answers]
    return Final(np.stack(masks), np.array([answer.predicted_iou for answer in answers], np.float32))


def evaluate(
    segmenter: Segmenter, image: Image.Image, masks: Sequence[Mask], protocol: Protocol
) -> list[dict[str, float]]:
    """Scores of every mask of one photograph: prompt name -> IoU."""
    looks = Looks(segmenter, Views.of(image, segmenter.manifest, protocol.zoom_in))
    starts = range(0, len(masks), PROMPTS_AT_ONCE)
    return [row for i in starts for row in evaluate_some(looks, masks[i : i + PROMPTS_AT_ONCE], protocol)]


def evaluate_some(looks: Looks, masks: Sequence[Mask], protocol: Protocol) -> list[dict[str, float]]:
    """Scores of a few masks of one photograph; ValueError if they are not of its size."""
    truth = np.stack([mask.decode().astype(bool) for mask in masks])
    if truth.shape[1:] != looks.size:
        raise ValueError(f"masks are {truth.shape[1:]} (height, width), the photograph is {looks.size}")
    found: list[dict[str, float]] = [{} for _ in masks]
    for new in (
        box_scores(looks, masks, truth) if protocol.box else [],
        click_scores(looks, truth, protocol.clicks) if protocol.clicks else [],
    ):
        for row, values in zip(found, new, strict=False):
            row.update(values)
    return found
