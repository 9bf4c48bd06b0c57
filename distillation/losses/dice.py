"""Dice loss (Milletari et al. 2016, arXiv:1606.04797), over points that stand for areas a.

L = 1 - 2 sum(a p t) / (sum(a p) + sum(a t))
"""

from torch import Tensor

TINY = 1e-6
"""Area in parts of the picture below which a mask counts as empty."""


def dice(logits: Tensor, truth: Tensor, area: Tensor) -> Tensor:
    """(P, M, N) logits, (P, N) truth and areas -> (P, M)."""
    p = logits.sigmoid()
    a, t = area[:, None], truth[:, None]
    both = (a * p * t).sum(-1)
    return 1 - (2 * both + TINY) / ((a * p).sum(-1) + (a * t).sum(-1) + TINY)
