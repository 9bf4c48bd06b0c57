"""Which of a decoder's masks a user gets.

SAM's decoder has four mask tokens: token 0 answers prompts that mean one thing, tokens 1 to 3 are the whole, a part and
a subpart for prompts that may mean each of them (Kirillov et al. 2023, arXiv:2304.02643, section 3). One click is such
an ambiguous prompt; a box, several clicks and a mask are not.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.labels import NEGATIVE, POSITIVE

Floats = NDArray[np.float32]
Indexes = NDArray[np.intp]

STABILITY_OFFSET = 1.0
"""Logits above and below 0 between which a stable mask has few pixels, as in SAM and EdgeSAM."""


STEADY_LEAD = 0.06
"""By how much the score of one of masks 1 to 3 has to exceed that of mask 0 under the rule `steady`."""


def offered_masks(rule: str, tokens: tuple[int, ...]) -> dict[int, float]:
    """Places that an ambiguous prompt may get, with what is added to the score of each."""
    if rule == "steady":
        return {place: STEADY_LEAD if token == 0 else 0.0 for place, token in enumerate(tokens)}
    return dict.fromkeys(ambiguous_masks(tokens), 0.0)


def ambiguous_masks(tokens: tuple[int, ...]) -> list[int]:
    """Places of the masks of an ambiguous prompt among a decoder's; the single mask if there is no other."""
    return [index for index, token in enumerate(tokens) if token != 0] or [0]


def is_ambiguous(labels: NDArray[Any], has_mask: bool = False) -> NDArray[np.bool_]:
    """(P,) which prompts, labels (P, N), are one click and nothing else; `has_mask`: a mask comes with them."""
    # Labels of clicks, then those of corners, follow those of slots that hold no point.
    present = np.asarray(labels) >= NEGATIVE
    clicks = present & (np.asarray(labels) <= POSITIVE)
    one: NDArray[np.bool_] = (present.sum(axis=1) == 1) & (clicks.sum(axis=1) == 1) & (not has_mask)
    return one


def choose_mask(
    rule: str, tokens: tuple[int, ...], iou: Floats, ambiguous: NDArray[np.bool_], masks: Floats | None = None
) -> Indexes:
    """The mask that a user gets for each of P prompts.

    An ambiguous prompt gets the one of masks 1 to 3 with the highest predicted IoU (`single`, `best`). Every other
    prompt gets by rule

    - `single`: mask 0; of a model without it as `best`;
    - `best`: the one of masks 1 to 3 with the highest predicted IoU.

    `steady` is `single` with the predicted IoU times the square root of the stability score, for an ambiguous prompt as
    well: of two masks that promise the same, the one with the clearer outline. Of these scores one of masks 1 to 3
    needs more than mask 0 has and STEADY_LEAD. That finds more than predicted IoU alone, and rounded files choose as
    float ones do: masks 1 to 3 often promise nearly the same.

    `stability` takes for every prompt, of all masks, the one with the highest stability score (EdgeSAM).

    Args:
        rule: one of `tinysam.runtime.manifest.MASK_CHOICES`.
        tokens: mask tokens of the decoder's mask axis, in order.
        iou: (P, masks) predicted IoU.
        ambiguous: (P,), see `is_ambiguous`.
        masks: (P, masks, h, w) low-res logits; needed by `stability` and `steady`.

    Returns:
        (P,) places in the mask axis.
    """
    scores = None
    if looks_at_masks(rule):
        assert masks is not None, f"the rule `{rule}` looks at the masks"
        count, offered, *_ = masks.shape
        scores = stability(masks.reshape(count * offered, *masks.shape[2:]), STABILITY_OFFSET).reshape(count, offered)
    return choose_by_scores(rule, tokens, iou, ambiguous, scores)


def looks_at_masks(rule: str) -> bool:
    """Whether a rule needs stability scores."""
    return rule in ("stability", "steady")


def choose_by_scores(
    rule: str,
    tokens: tuple[int, ...],
    iou: Floats,
    ambiguous: NDArray[np.bool_],
    scores: NDArray[np.floating[Any]] | None,
) -> Indexes:
    """`choose_mask` with the (P, masks) stability scores at STABILITY_OFFSET, None where the rule needs none."""
    score: NDArray[np.floating[Any]] = iou
    if scores is not None:
        if rule == "stability":
            return np.asarray(scores.argmax(axis=1))
        score = iou * np.sqrt(scores)
    offered = offered_masks(rule, tokens)
    options = np.array(list(offered))
    best: Indexes = options[(score[:, options] + np.array(list(offered.values()))).argmax(axis=1)]
    if rule == "best" or 0 not in tokens:
        return best
    return np.where(ambiguous, best, tokens.index(0))


def select_masks(tokens: tuple[int, ...], masks: Floats, iou: Floats, multimask_output: bool) -> tuple[Floats, Floats]:
    """Keeps the masks that a caller asked for of (P, len(tokens), ...): the ambiguous three, or one."""
    keep = ambiguous_masks(tokens)
    if multimask_output or len(tokens) == 1:
        if len(keep) == len(tokens):
            return masks, iou
        return masks[:, keep], iou[:, keep]
    return take_masks(masks, iou, choose_mask("single", tokens, iou, np.zeros(len(iou), np.bool_)))


def take_masks(masks: Floats, iou: Floats, chosen: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """(P, M, h, w), (P, M) and places (P,) -> (P, 1, h, w) and (P, 1)."""
    places = chosen[:, None]
    return np.take_along_axis(masks, places[..., None, None], axis=1), np.take_along_axis(iou, places, axis=1)


def stability(logits: Floats, offset: float) -> NDArray[np.float64]:
    """(n, h, w) logits -> (n,): area above `+offset` as a part of the area above `-offset`; 0 where that is empty."""
    inner = np.count_nonzero(logits > offset, axis=(1, 2))
    outer = np.count_nonzero(logits > -offset, axis=(1, 2))
    score: NDArray[np.float64] = inner / np.maximum(outer, 1)
    return score
