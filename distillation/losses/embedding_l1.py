"""Full-stage distillation, image embedding (TinySAM, Shu et al. 2023, arXiv:2312.13789, equation 4).

L = mean( |F_student - F_teacher| )
"""

from torch import Tensor
from torch.nn import functional as F


def embedding_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """(B, C, grid, grid) embeddings -> scalar."""
    return F.l1_loss(student.float(), teacher.detach().float())
