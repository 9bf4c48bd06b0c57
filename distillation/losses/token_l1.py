"""Full-stage distillation, output tokens of the two-way transformer (TinySAM, arXiv:2312.13789, equation 5).

    L = mean( |T_student - T_teacher| )

The tokens carry what the decoder made of image and prompt; comparing them teaches their interplay.
"""

from torch import Tensor
from torch.nn import functional as F


def token_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """(P, 5, dim) tokens: the IoU token, then the four mask tokens -> (P,)."""
    return F.l1_loss(student.float(), teacher.detach().float(), reduction="none").mean((1, 2))
