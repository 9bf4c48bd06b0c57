"""Full-stage distillation, mask output (TinySAM, arXiv:2312.13789, equation 6).

    L = mean( |M_student - M_teacher| )

over the logits of all four low-res masks. Logits far outside are cut off at LIMIT: how sure a teacher is of the sky
says nothing about the object.
"""

from torch import Tensor
from torch.nn import functional as F

LIMIT = 12.0
"""Logits beyond this count as this; sigmoid(12) is 1 to five digits."""


def mask_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """(P, 4, h, w) logits -> (P,)."""
    target = teacher.detach().float().clamp(-LIMIT, LIMIT)
    beyond = (student.detach().float().abs() >= LIMIT) & (target.abs() >= LIMIT) & (student.detach() * target > 0)
    distance = F.l1_loss(student.float(), target, reduction="none").masked_fill(beyond, 0)
    return distance.mean((1, 2, 3))
