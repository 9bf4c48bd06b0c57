"""The terms of the losses, each with equation and source; `objectives` puts them together.

1. Where masks are compared: `sample_points`, `logits_at`. A loss on every cell of the low-res mask hardly sees small
   objects (16 x 16 pixels are 4 x 4 cells). Instead the logits are interpolated at random points of the
   full-resolution mask, as in PointRend (Kirillov et al. 2020, arXiv:1912.08193): one stratum in the object's enlarged
   box, one over the whole picture. Each point carries the area it stands for, so sums over points estimate sums over
   pixels.
2. Masks against the truth, at these points: `cross_entropy`, `focal`, `dice`.
3. Which of masks 1 to 3 is to be which answer of one click: `of_three`.
4. Predicted IoU against the IoU that masks have: `iou_at`, `predicted_iou`.
5. Student against teacher: `embedding_mse`, `embedding_l1`, `token_l1`, `mask_l1`, `iou_l1`, `hard_mask_weight`.

P prompts, M masks of each, N points; near points come first, areas a are parts of the picture.
"""

from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tinysam.datasets.prompts import extent

NEAR, FAR = 768, 384
"""Points in the enlarged box and in the whole picture."""
MARGIN = 0.25
"""How far the enlarged box reaches beyond the object, in parts of its size."""
LEAST = 8
"""Smallest margin in pixels."""

TINY = 1e-6
"""Area in parts of the picture below which a mask counts as empty."""
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2
LOGIT_LIMIT = 12.0
"""Teacher's logits beyond this count as this; sigmoid(12) is 1 to five digits."""
EPS = 1e-5
OTHER_ANSWERS = 0.5
"""Share of the other answers to a click, if it has any, in what masks 1 to 3 are matched with."""
MEAN_AMBIGUOUS, MEAN_SINGLE = 0.1, 0.5
"""Share of the mean over masks 1 to 3, for one click and for other prompts."""

Rng = np.random.Generator


def sample_points(mask: NDArray[np.bool_], rng: Rng) -> tuple[NDArray[np.float32], ...]:
    """Points on a mask of the model's square input.

    Returns:
        (N, 2) x and y in [0, 1] of the input's side; (N,) truth, 0 or 1; (N,) area of each point in parts of the
        input, 0 for far points that fall in the enlarged box.
    """
    size = mask.shape[0]
    x0, y0, x1, y1 = extent(mask)
    dx, dy = max(LEAST, MARGIN * (x1 - x0)), max(LEAST, MARGIN * (y1 - y0))
    low = np.array([max(0, x0 - dx), max(0, y0 - dy)])
    high = np.array([min(size, x1 + dx), min(size, y1 + dy)])
    near = low + rng.random((NEAR, 2)) * (high - low)
    far = rng.random((FAR, 2)) * size
    outside = ((far < low) | (far >= high)).any(axis=1)
    area = np.concatenate([np.full(NEAR, np.prod((high - low) / size) / NEAR), outside / FAR])
    points = np.concatenate([near, far])
    x, y = points.astype(np.int64).clip(max=size - 1).T
    return (points / size).astype(np.float32), mask[y, x].astype(np.float32), area.astype(np.float32)


def logits_at(masks: Tensor, points: Tensor) -> Tensor:
    """(P, M, h, w) mask logits interpolated at (P, N, 2) points in [0, 1]: (P, M, N)."""
    grid = points[:, None] * 2 - 1
    return F.grid_sample(masks, grid, align_corners=False, padding_mode="border").squeeze(2)


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy; near and far points weigh the same, however small the object is.

    L = 1/2 mean_near(bce) + 1/2 mean_far(bce)

    Args:
        logits: (P, M, N).
        truth: (P, N) or (P, M, N), 0 or 1.

    Returns:
        (P, M)
    """
    return near_and_far(F.binary_cross_entropy_with_logits(logits, per_mask(truth, logits), reduction="none"))


def focal(logits: Tensor, truth: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017, arXiv:1708.02002); near and far points weigh the same.

    L = -alpha_t (1 - p_t)^gamma log(p_t)

    Args:
        logits: (P, M, N).
        truth: (P, N), 0 or 1.

    Returns:
        (P, M)
    """
    t = per_mask(truth, logits)
    bce = F.binary_cross_entropy_with_logits(logits, t, reduction="none")
    p = logits.sigmoid()
    wrong = p * (1 - t) + (1 - p) * t
    return near_and_far((FOCAL_ALPHA * t + (1 - FOCAL_ALPHA) * (1 - t)) * wrong**FOCAL_GAMMA * bce)


def dice(logits: Tensor, truth: Tensor, area: Tensor) -> Tensor:
    """Dice loss (Milletari et al. 2016, arXiv:1606.04797), over points that stand for areas a.

    L = 1 - 2 sum(a p t) / (sum(a p) + sum(a t))

    Args:
        logits: (P, M, N).
        truth: (P, N) or (P, M, N), 0 or 1.
        area: (P, N).

    Returns:
        (P, M)
    """
    p, t, a = logits.sigmoid(), per_mask(truth, logits), area[:, None]
    both = (a * p * t).sum(-1)
    return 1 - (2 * both + TINY) / ((a * p).sum(-1) + (a * t).sum(-1) + TINY)


def per_mask(truth: Tensor, logits: Tensor) -> Tensor:
    """(P, N) truth for all masks, or (P, M, N) of their own -> (P, M, N)."""
    return truth[:, None].expand_as(logits) if truth.ndim < logits.ndim else truth


def near_and_far(loss: Tensor) -> Tensor:
    """(..., N) -> (...): half the mean over the near points and half of that over the far ones."""
    return 0.5 * (loss[..., :NEAR].mean(-1) + loss[..., NEAR:].mean(-1))


def of_three(losses: Tensor, answered: Tensor, shown: Tensor, single: Tensor, shown_share: float) -> Tensor:
    """The loss of masks 1 to 3 together.

    Three things count: the best match of masks and answers, each answer with a mask of its own (Li et al. 2018, in SAM:
    arXiv:2304.02643, appendix A); the mask that a user would get, compared with the answer that was meant; and the mean
    over the three, each compared with the answer nearest to it, which keeps all of them alive.

    Args:
        losses: (P, 3, A) loss of masks 1 to 3 for each of A <= 3 answers; the first is the one that was meant.
        answered: (P, A) bool, which answers there are; the first one always.
        shown: (P,) which of the three a user would get.
        single: (P,) bool, whether the prompt is unambiguous.
        shown_share: of the mask shown, in what is not the mean's.

    Returns:
        (P,)
    """
    count = losses.shape[2]
    others = answered[:, 1:].float()
    share = OTHER_ANSWERS * others / others.sum(1, keepdim=True).clamp(min=1)
    weight = torch.cat([1 - share.sum(1, keepdim=True), share], 1)
    matches = [(weight * losses[:, order, range(count)]).sum(1) for order in permutations(range(3), count)]
    best = torch.stack(matches, 1).amin(1)
    chosen = losses[..., 0].gather(1, shown[:, None]).squeeze(1)
    mean = losses.masked_fill(~answered[:, None], torch.inf).amin(2).mean(1)
    mean_share = torch.where(single, MEAN_SINGLE, MEAN_AMBIGUOUS)
    return (1 - mean_share) * ((1 - shown_share) * best + shown_share * chosen) + mean_share * mean


def iou_at(logits: Tensor, truth: Tensor, area: Tensor) -> Tensor:
    """(P, M, N) logits, (P, N) truth and areas -> (P, M) IoU of the masks above 0."""
    a, t, p = area[:, None], truth[:, None].bool(), logits > 0
    return (a * (p & t)).sum(-1) / (a * (p | t)).sum(-1).clamp(min=1e-9)


def predicted_iou(predicted: Tensor, actual: Tensor) -> Tensor:
    """Squared error (SAM, arXiv:2304.02643, appendix A): (P, M) predicted and actual IoU -> (P, M)."""
    return (predicted - actual.detach()).square()


def embedding_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Decoupled distillation (MobileSAM, Zhang et al. 2023, arXiv:2306.14289, section 3.2): the encoder alone.

    L = mean( (F_student - F_teacher)^2 ) of (B, C, grid, grid) embeddings; the decoder is the teacher's, frozen.
    """
    return F.mse_loss(student.float(), teacher.detach().float())


def embedding_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Full-stage distillation, image embedding (TinySAM, Shu et al. 2023, arXiv:2312.13789, equation 4).

    L = mean( |F_student - F_teacher| ) of (B, C, grid, grid) embeddings.
    """
    return F.l1_loss(student.float(), teacher.detach().float())


def token_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Full-stage distillation, output tokens of the two-way transformer (TinySAM, equation 5).

    L = mean( |T_student - T_teacher| ) of (P, 5, dim) tokens, the IoU token and four mask tokens -> (P,). The tokens
    carry what the decoder made of image and prompt; comparing them teaches their interplay.
    """
    return F.l1_loss(student.float(), teacher.detach().float(), reduction="none").mean((1, 2))


def mask_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Full-stage distillation, mask output (TinySAM, equation 6).

    L = mean( |M_student - M_teacher| ) of (P, 4, h, w) logits -> (P,). Logits are cut off at LOGIT_LIMIT:
    beyond it their size carries no information about the object's outline.
    """
    target = teacher.detach().float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
    far = (student.detach().float().abs() >= LOGIT_LIMIT) & (target.abs() >= LOGIT_LIMIT)
    same_side = student.detach() * target > 0
    distance = F.l1_loss(student.float(), target, reduction="none").masked_fill(far & same_side, 0)
    return distance.mean((1, 2, 3))


def iou_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Full-stage distillation, predicted IoU (TinySAM, section 3.1).

    L = mean( |IoU_student - IoU_teacher| ) of (P, 4) -> (P,).
    """
    return F.l1_loss(student.float(), teacher.detach().float(), reduction="none").mean(1)


def hard_mask_weight(student_iou: Tensor, teacher_iou: Tensor) -> Tensor:
    """Hard mask weighting (TinySAM, equation 8): H = sigmoid( IoU(teacher, truth) / (IoU(student, truth) + eps) - 1 ).

    0.5 where both are as good, towards 1 where the teacher is better, down to sigmoid(-1) = 0.27 where the student is.
    Takes IoU with the truth of any shape, returns weights of that shape, without gradient.
    """
    return (teacher_iou / (student_iou + EPS) - 1).sigmoid().detach()
