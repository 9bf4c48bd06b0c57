"""Hard prompt sampling (TinySAM, Shu et al. 2023, arXiv:2312.13789, section 3.2).

The next prompt is drawn where the current prediction M' differs from the truth M:

    p ~ uniform{ (x, y) : M'(x, y) != M(x, y) },  positive where M = 1, negative where M = 0

and the earlier prediction goes in as the mask prompt.
"""

import torch
from torch import Tensor

from tinysam.runtime.labels import NEGATIVE, POSITIVE


def draw_true(mask: Tensor, pick: Tensor) -> Tensor:
    """The floor(pick * count)-th true pixel of each mask.

    Args:
        mask: (P, H, W) bool, each with a true pixel.
        pick: (P,) uniform random numbers in [0, 1).

    Returns:
        (P, 2) x and y.
    """
    width = mask.shape[-1]
    rank = mask.flatten(1).to(torch.int32).cumsum(1, dtype=torch.int32)
    count = rank[:, -1]
    wanted = (pick * count).to(torch.int32).clamp(max=count - 1) + 1
    index = torch.searchsorted(rank, wanted[:, None]).squeeze(1)
    return torch.stack([index % width, index // width], dim=1)


def next_click(predicted: Tensor, truth: Tensor, pick: Tensor) -> tuple[Tensor, Tensor]:
    """A click where the prediction is wrong; on the object where it is right everywhere.

    Args:
        predicted: (P, H, W) bool.
        truth: (P, H, W) bool, each with a true pixel.
        pick: (P,) uniform random numbers in [0, 1).

    Returns:
        (P, 1, 2) float x and y in pixels of the masks, (P, 1) labels.
    """
    wrong = predicted ^ truth
    perfect = ~wrong.flatten(1).any(1)
    wrong = torch.where(perfect[:, None, None], truth, wrong)
    at = draw_true(wrong, pick)
    on_object = truth[torch.arange(len(truth), device=truth.device), at[:, 1], at[:, 0]]
    label = torch.where(on_object, POSITIVE, NEGATIVE)
    return at[:, None].float(), label[:, None]
