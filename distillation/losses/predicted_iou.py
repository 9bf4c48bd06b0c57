"""Loss of the predicted IoU: squared error to the IoU that the masks have (SAM, arXiv:2304.02643, appendix A)."""

from torch import Tensor


def iou_at(logits: Tensor, truth: Tensor, area: Tensor) -> Tensor:
    """(P, M, N) logits, (P, N) truth and areas -> (P, M) IoU of the masks above 0."""
    a, t, p = area[:, None], truth[:, None].bool(), logits > 0
    return (a * (p & t)).sum(-1) / (a * (p | t)).sum(-1).clamp(min=1e-9)


def predicted_iou(predicted: Tensor, actual: Tensor) -> Tensor:
    """(P, M) predicted and actual IoU -> (P, M)."""
    return (predicted - actual.detach()).square()
