"""Full-stage distillation: the student follows the teacher at every stage (TinySAM, arXiv:2312.13789, section 3.1).

    L = a embedding_l1 + b token_l1 + c H mask_l1 + d focal + e dice + f iou_l1

to the teacher's embedding, output tokens, masks and predicted IoU, and (focal, dice) to the truth. To the truth, mask 0
is compared on unambiguous prompts, and masks 1 to 3 as in `supervised`. H is 1, or the hard mask weight by the best of
each model's masks. The paper does not publish its weights. Ours give every term about the same gradient in the encoder
of a student half-way, and the embedding as much as the others together; SAM's 20 for focal belongs to a mean over all
pixels, most of them easy, and at points near the object would outweigh all others together.
"""

import torch
from torch import Tensor

from tinysam.distillation.losses.dice import dice
from tinysam.distillation.losses.focal import focal
from tinysam.distillation.losses.hard_mask_weight import hard_mask_weight
from tinysam.distillation.losses.iou_l1 import iou_l1
from tinysam.distillation.losses.mask_l1 import mask_l1
from tinysam.distillation.losses.predicted_iou import iou_at
from tinysam.distillation.losses.token_l1 import token_l1
from tinysam.distillation.points import logits_at
from tinysam.distillation.samples import Batch
from tinysam.distillation.supervised import of_three
from tinysam.models.mask_decoder import Decoded

EMBEDDING, TOKEN, MASK, FOCAL, DICE, IOU = 10.0, 1.0, 0.2, 1.0, 1.0, 1.0
"""Weights a to f."""


def full_stage(student: Decoded, teacher: Decoded, batch: Batch, single: Tensor, weigh: bool) -> tuple[Tensor, Tensor]:
    """Everything but the embedding's term, for one round.

    Args:
        student: its answer to P prompts.
        teacher: its answer to the same.
        batch: with the truth at the points.
        single: (P,) bool, whether the prompt is unambiguous.
        weigh: whether to use hard mask weighting.

    Returns:
        Scalar loss, (P, 4) IoU of the student's masks with the truth.
    """
    logits = logits_at(student.low_res_masks.float(), batch.points)
    iou = iou_at(logits.detach(), batch.truth, batch.area)
    per_mask = FOCAL * focal(logits, batch.truth) + DICE * dice(logits, batch.truth, batch.area)
    truth = torch.where(single, per_mask[:, 0], 0) + of_three(per_mask, student.iou, single)
    masks = mask_l1(student.low_res_masks, teacher.low_res_masks)
    if weigh:
        teacher_iou = iou_at(logits_at(teacher.low_res_masks.float(), batch.points), batch.truth, batch.area)
        masks = masks * hard_mask_weight(iou.amax(1), teacher_iou.amax(1))
    tokens = token_l1(student.tokens, teacher.tokens)
    loss = TOKEN * tokens + MASK * masks + truth + IOU * iou_l1(student.iou, teacher.iou)
    return loss.mean(), iou
