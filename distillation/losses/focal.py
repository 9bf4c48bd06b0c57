"""Focal loss (Lin et al. 2017, arXiv:1708.02002), at points: near and far points weigh the same.

L = -alpha_t (1 - p_t)^gamma log(p_t),  alpha 0.25, gamma 2
"""

from torch import Tensor
from torch.nn import functional as F

from tinysam.distillation.points import NEAR

ALPHA, GAMMA = 0.25, 2


def focal(logits: Tensor, truth: Tensor) -> Tensor:
    """(P, M, N) logits and (P, N) truth at points, near ones first -> (P, M)."""
    t = truth[:, None].expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits, t, reduction="none")
    p = logits.sigmoid()
    wrong = p * (1 - t) + (1 - p) * t
    loss = (ALPHA * t + (1 - ALPHA) * (1 - t)) * wrong**GAMMA * bce
    return 0.5 * (loss[..., :NEAR].mean(-1) + loss[..., NEAR:].mean(-1))
