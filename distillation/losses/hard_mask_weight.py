"""Hard mask weighting (TinySAM, arXiv:2312.13789, equation 8).

    H = sigmoid( IoU(teacher, truth) / (IoU(student, truth) + eps) - 1 )

0.5 where both are as good, towards 1 where the teacher is better, down to sigmoid(-1) = 0.27 where the student is.
"""

from torch import Tensor

EPS = 1e-5


def hard_mask_weight(student_iou: Tensor, teacher_iou: Tensor) -> Tensor:
    """IoU with the truth, any shape -> weights of that shape, without gradient."""
    return (teacher_iou / (student_iou + EPS) - 1).sigmoid().detach()
