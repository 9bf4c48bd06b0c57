"""The record of a run: means over an interval as csv and in TensorBoard, and a picture of the curves at the end."""

import csv
import io
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tinysam.distillation.rounds import Prompt, chosen_masks
from tinysam.models.mask_decoder import Decoded
from tinysam.runtime.atomic import write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

KINDS = ("box", "click", "further")
"""Kinds of prompt whose IoU is told apart."""
FIELDS = ("step", "seconds", "learning_rate", "loss", "iou_box", "iou_click", "iou_further", "norm", "loading_share")


class TrainingLog:
    """Appends a row per interval; rows of steps that a resumed run does again are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.path = folder, folder / "log.csv"
        kept = [row for row in read_rows(self.path) if int(row["step"]) <= step]
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, FIELDS)
        writer.writeheader()
        writer.writerows(kept)
        write_atomically(self.path, buffer.getvalue().encode())
        self.board = open_board(folder / "tensorboard", step)

    def add(self, row: dict[str, float]) -> None:
        """Writes one row at once, so that a killed run keeps it."""
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, FIELDS).writerow(
                {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
            )
        if self.board:
            for name, value in row.items():
                self.board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Draws the curves."""
        if self.board:
            self.board.close()
        draw(read_rows(self.path), self.folder / "curves.png")


def open_board(folder: Path, step: int) -> "SummaryWriter | None":
    """A TensorBoard log that forgets what came after `step`; None where TensorBoard is not installed."""
    # TensorBoard loads all of TensorFlow where that is installed; this module's presence is its switch against it.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Complete rows of a log; none if there is no log. A last line cut short is left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if all(row.get(name) for name in FIELDS)]


def draw(rows: list[dict[str, str]], path: Path) -> None:
    """A picture of loss and IoU over the steps; nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [int(row["step"]) for row in rows]
    left.plot(steps, [float(row["loss"]) for row in rows])
    left.set(xlabel="step", ylabel="loss")
    for name in ("iou_box", "iou_click", "iou_further"):
        right.plot(steps, [float(row[name]) for row in rows], label=name.removeprefix("iou_"))
    right.set(xlabel="step", ylabel="IoU of the mask used")
    right.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    write_atomically(path, buffer.getvalue())


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
