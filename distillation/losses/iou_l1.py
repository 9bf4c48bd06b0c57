"""Full-stage distillation, predicted IoU (TinySAM, arXiv:2312.13789, section 3.1).

L = mean( |IoU_student - IoU_teacher| )
"""

from torch import Tensor
from torch.nn import functional as F


def iou_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """(P, 4) predicted IoU -> (P,)."""
    return F.l1_loss(student.float(), teacher.detach().float(), reduction="none").mean(1)
