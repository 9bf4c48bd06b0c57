"""Supervised training on masks: what each of the decoder's outputs is asked to be.

For every mask k of a prompt, with logits read at random points (`points`):

    L_k = 1/2 cross_entropy_k + 2 dice_k

Dice leads because it is what the IoU asks for: where a click leaves the extent of the object open, cross-entropy
alone draws the line at a probability of 1/2, too tight for the best mean IoU. Mask 0 (unambiguous) has weight 1 on
boxes and on several clicks, and FIRST_CLICK on a single click. Of masks 1 to 3 (ambiguous) three things count: the
best one (Li et al. 2018, in SAM: arXiv:2304.02643, appendix A), the one that the predicted IoU would have shown to
the user, and their mean, which keeps the other two alive; on unambiguous prompts all three should be right, so the
mean's share is larger.
"""

import torch
from torch import Tensor

from tinysam.distillation.losses.cross_entropy import cross_entropy
from tinysam.distillation.losses.dice import dice
from tinysam.distillation.losses.predicted_iou import iou_at, predicted_iou
from tinysam.distillation.points import logits_at
from tinysam.distillation.samples import Batch
from tinysam.models.mask_decoder import Decoded

FIRST_CLICK = 0.25
"""Weight of mask 0 on a single click, where it can only average what the click may mean."""
CROSS_ENTROPY, DICE = 0.5, 2.0
MEAN_AMBIGUOUS, MEAN_SINGLE = 0.1, 0.5
"""Share of the mean over masks 1 to 3."""
SHOWN = 0.3
"""Share of the mask that the predicted IoU chooses; the rest is for the best one."""
IOU_WEIGHT = 1.0


def of_three(per_mask: Tensor, predicted: Tensor, single: Tensor) -> Tensor:
    """The loss of masks 1 to 3 together.

    Args:
        per_mask: (P, 4) loss of each mask.
        predicted: (P, 4) predicted IoU, which chooses one of the three.
        single: (P,) bool, whether the prompt is unambiguous.

    Returns:
        (P,)
    """
    three = per_mask[:, 1:]
    mean_share = torch.where(single, MEAN_SINGLE, MEAN_AMBIGUOUS)
    shown = three.gather(1, predicted[:, 1:].argmax(1, keepdim=True)).squeeze(1)
    return (1 - SHOWN - mean_share) * three.amin(1) + SHOWN * shown + mean_share * three.mean(1)


def supervised(decoded: Decoded, batch: Batch, single: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of one round.

    Args:
        decoded: the decoder's answer to P prompts.
        batch: with the truth at the points.
        single: (P,) bool, whether the prompt is unambiguous.

    Returns:
        Scalar loss, (P, 4) IoU of the masks with the truth.
    """
    logits = logits_at(decoded.low_res_masks.float(), batch.points)
    per_mask = CROSS_ENTROPY * cross_entropy(logits, batch.truth) + DICE * dice(logits, batch.truth, batch.area)
    first = per_mask[:, 0] * torch.where(single, 1.0, FIRST_CLICK)
    masks = first + of_three(per_mask, decoded.iou, single)
    iou = iou_at(logits.detach(), batch.truth, batch.area)
    loss = masks.mean() + IOU_WEIGHT * predicted_iou(decoded.iou.float(), iou).sum(1).mean()
    return loss, iou
