"""Sums over an interval of the log."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tinysam.distillation.rounds import Prompt, chosen_masks
from tinysam.models.mask_decoder import Decoded

KINDS = ("box", "click", "further")


@dataclass
class Tally:
    """What happened in some steps."""

    rule: str = "single"
    """The variant's `mask_choice`."""
    steps: int = 0
    loss: float = 0.0
    norm: float = 0.0
    waiting: float = 0.0
    """Seconds without a batch."""
    seconds: float = 0.0
    """Seconds in all."""
    iou: dict[str, tuple[float, int]] = field(default_factory=lambda: dict.fromkeys(KINDS, (0.0, 0)))
    """Sum and number of IoU of the masks a user would get, by kind of prompt."""

    def masks(self, i: int, prompt: Prompt, decoded: Decoded, iou: Tensor) -> None:
        """Adds the (P, 4) IoU of round `i`: the mask that a user would get counts."""
        single = torch.ones_like(prompt.single) if i else prompt.single
        used = iou.gather(1, chosen_masks(decoded, single, self.rule)[:, None]).squeeze(1)
        everyone = torch.ones_like(prompt.single)
        for kind, which in [("further", everyone)] if i else [("box", prompt.single), ("click", ~prompt.single)]:
            total, count = self.iou[kind]
            self.iou[kind] = (total + float(used[which].sum()), count + int(which.sum()))

    def means(self) -> dict[str, float]:
        """Means for the log."""
        return {
            "loss": self.loss / self.steps,
            **{f"iou_{kind}": total / count if count else math.nan for kind, (total, count) in self.iou.items()},
            "norm": self.norm / self.steps,
            "loading_share": self.waiting / self.seconds,
        }
