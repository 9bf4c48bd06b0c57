"""Binary cross-entropy at points: near and far points weigh the same, however small the object is.

L = 1/2 mean_near(bce) + 1/2 mean_far(bce)
"""

from torch import Tensor
from torch.nn import functional as F

from tinysam.distillation.points import NEAR


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """(P, M, N) logits and (P, N) truth at points, near ones first -> (P, M)."""
    bce = F.binary_cross_entropy_with_logits(logits, truth[:, None].expand_as(logits), reduction="none")
    return 0.5 * (bce[..., :NEAR].mean(-1) + bce[..., NEAR:].mean(-1))
