"""The training loop: one process's part of it."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from tinysam.distillation.checkpoints import State, save_state
from tinysam.distillation.device import Device, average_gradients, share_batch_norm
from tinysam.distillation.objectives import Objective
from tinysam.distillation.recipe import Recipe, learning_rate
from tinysam.distillation.samples import Batch
from tinysam.distillation.training_log import Tally, TrainingLog
from tinysam.models import Sam, get_variant


class Diverged(RuntimeError):
    """The loss or its gradient is not finite; the message says where the batch was kept."""


def optimizer_for(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over what is trained; biases, norms, embeddings and attention biases are not decayed."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if p.ndim > 1 and not is_table(name)]
    others = [p for name, p in trained if p.ndim < 2 or is_table(name)]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def is_table(name: str) -> bool:
    """Whether a matrix is a table of embeddings rather than a map."""
    return "attention_biases" in name or "_embed" in name or "_token" in name


def training_mode(model: nn.Module, freeze_norm: bool) -> None:
    """Training mode, with batch norm left as it is on demand."""
    model.train()
    for module in model.modules():
        if freeze_norm and isinstance(module, nn.BatchNorm2d):
            module.eval()


class Trainer:
    """One run in one process.

    Args:
        model: the student, on its device.
        objective: what to minimize.
        recipe: how.
        device: where.
        folder: of checkpoint, weights and log; written by the process of rank 0 alone.
        minutes: between checkpoints.
        rank: of this process.
        world: number of processes.
        teacher: variant and SHA-256 of the teacher's weights, if there is one; a run cannot continue with another.
    """

    def __init__(
        self,
        model: Sam,
        objective: Objective,
        recipe: Recipe,
        device: Device,
        folder: Path,
        minutes: float = 3.0,
        rank: int = 0,
        world: int = 1,
        teacher: str = "",
    ) -> None:
        self.model, self.objective, self.recipe, self.device = model, objective, recipe, device
        self.folder, self.minutes, self.rank, self.world = folder, minutes, rank, world
        self.teacher = teacher
        if world > 1:
            share_batch_norm(model)
        self.optimizer = optimizer_for(model, recipe)
        self.average = Average(model, recipe.ema)
        self.step, self.seconds = 0, 0.0

    def resume(self, state: State) -> None:
        """Continues from a checkpoint."""
        self.model.load_state_dict(state.model)
        self.average.load(state.average)
        self.optimizer.load_state_dict(state.optimizer)
        self.step, self.seconds = state.step, state.seconds

    def state(self) -> State:
        """What a checkpoint holds."""
        weights, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        return State(
            self.step, self.seconds, self.recipe, self.world, weights, self.average.state, optimizer, self.teacher
        )

    def update(self, batch: Batch, tally: Tally) -> None:
        """One optimizer step; Diverged, with the weights as they were, if loss or gradient is not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        loss = self.objective(self.model, batch, self.step, tally)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(self.keep(batch, "loss"))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.world > 1:
            average_gradients(self.model.parameters())
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip))
        if not math.isfinite(norm):
            raise Diverged(self.keep(batch, "gradient"))
        self.optimizer.step()
        self.average.update(self.model, self.step)
        self.step += 1
        tally.steps, tally.loss, tally.norm = tally.steps + 1, tally.loss + value, tally.norm + norm

    def keep(self, batch: Batch, what: str) -> str:
        """Saves the batch whose loss or gradient is not finite; the message to stop with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"batch-{self.step}-rank-{self.rank}.pt"
        torch.save(vars(batch), path)
        return f"the {what} of step {self.step} is not finite; its batch is in {path}; lower the learning rate"

    def run(self, batches: Iterator[Batch], every: int = 50) -> Iterator[dict[str, float]]:
        """Trains to the recipe's last step; yields a row for the log every `every` steps."""
        training_log = TrainingLog(self.folder, self.step) if self.rank == 0 else None
        training_mode(self.model, self.recipe.freeze_norm)
        rule = get_variant(self.recipe.variant).mask_choice
        tally, saved = Tally(rule), time.monotonic()
        while self.step < self.recipe.steps:
            start = time.monotonic()
            batch = self.device.take(next(batches))
            tally.waiting += time.monotonic() - start
            self.update(batch, tally)
            spent = time.monotonic() - start
            self.seconds, tally.seconds = self.seconds + spent, tally.seconds + spent
            last = self.step == self.recipe.steps
            if self.step % every == 0 or last:
                row = self.row(tally)
                if training_log:
                    training_log.add(row)
                yield row
                tally = Tally(rule)
            if self.rank == 0 and (last or time.monotonic() - saved > 60 * self.minutes):
                save_state(self.folder, self.state())
                saved = time.monotonic()
        if training_log:
            training_log.close()

    def row(self, tally: Tally) -> dict[str, float]:
        """A line of the log."""
        rate = learning_rate(self.recipe, self.step - 1)
        return {"step": self.step, "seconds": self.seconds, "learning_rate": rate, **tally.means()}


class Average:
    """Keeps `decay` times itself plus the rest of the model, parameters and batch norm statistics alike."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """After optimizer step `step`; the average warms up over the first steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = model.state_dict()
        moving = [name for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.state[name] for name in moving], [now[name] for name in moving], 1 - decay)
        for name in now.keys() - set(moving):
            self.state[name].copy_(now[name])

    def load(self, state: dict[str, Tensor]) -> None:
        """Continues from a stored average."""
        for name, value in state.items():
            self.state[name].copy_(value)
