"""Decoupled distillation (MobileSAM, Zhang et al. 2023, arXiv:2306.14289, section 3.2): the encoder alone.

    L = mean( (F_student - F_teacher)^2 )

The decoder is the teacher's, copied and frozen.
"""

from torch import Tensor
from torch.nn import functional as F


def embedding_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """(B, C, grid, grid) embeddings -> scalar."""
    return F.mse_loss(student.float(), teacher.detach().float())
