"""Prompts on a picture that is all object, answered with masks of one logit each: losses by hand."""

import math

import torch

from tinysam.distillation.losses import FAR, NEAR
from tinysam.distillation.samples import Batch
from tinysam.models.mask_decoder import Decoded


def batch_of(prompts: int) -> Batch:
    """The truth at points, each of the same area; nothing else."""
    count, empty = NEAR + FAR, torch.zeros(0)
    points = torch.rand(prompts, count, 2, generator=torch.Generator().manual_seed(0))
    truth, area = torch.ones(prompts, count), torch.full((prompts, count), 1 / count)
    others = truth.bool()[:, None].repeat(1, 2, 1)
    return Batch(empty, empty, empty, points=points, truth=truth, others=others, area=area)


def decoded(logits: list[list[float]], token: float = 0.0, iou: float | list[float] = 0.0) -> Decoded:
    """Four logits for each prompt, the value of all tokens, and the predicted IoU of all masks or of each."""
    masks = torch.tensor(logits)[:, :, None, None].expand(-1, -1, 8, 8)
    prompts = len(logits)
    return Decoded(masks, torch.tensor(iou).expand(prompts, 4), torch.full((prompts, 5, 8), token))


def dice_of(logit: float) -> float:
    """Dice loss of a mask of this logit everywhere."""
    p = 1 / (1 + math.exp(-logit))
    return 1 - 2 * p / (p + 1)
