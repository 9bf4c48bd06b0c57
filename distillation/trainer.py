"""The training loop."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tinysam.distillation.average import Average
from tinysam.distillation.checkpoints import State, save_state
from tinysam.distillation.journal import Journal
from tinysam.distillation.recipe import Recipe, learning_rate
from tinysam.distillation.rounds import Prompt, round_count, rounds
from tinysam.distillation.samples import Batch
from tinysam.distillation.supervised import supervised
from tinysam.models import Sam, normalize
from tinysam.models.mask_decoder import Decoded

log = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """The loss is not finite; the message says where the batch was kept."""


@dataclass(frozen=True)
class Device:
    """Where and in which precision a step runs."""

    name: str
    half: bool
    """Whether to compute in bfloat16 where autocast allows it."""

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Autocast, and on a CPU plain attention: torch's fused attention has a slow backward there."""
        cpu = self.name == "cpu"
        kernels = [SDPBackend.MATH] if cpu else [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION,
                                                 SDPBackend.MATH]
        with torch.autocast(self.name, torch.bfloat16, enabled=self.half), sdpa_kernel(kernels):
            yield

    def take(self, batch: Batch) -> Batch:
        """The batch on this device."""
        if self.name == "cpu":
            return batch
        return Batch(**{k: v.to(self.name, non_blocking=True) for k, v in vars(batch).items()})


def images(batch: Batch) -> Tensor:
    """(B, 3, S, S) normalized, zeros in the padding."""
    x = normalize(batch.pixels.float())
    side = torch.arange(x.shape[-1], device=x.device)
    rows, cols = side < batch.shown[:, :1], side < batch.shown[:, 1:]
    return x * (rows[:, None, :, None] & cols[:, None, None, :])


def optimizer_for(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; biases, norms, embeddings and attention biases are not decayed."""
    decayed = [p for n, p in model.named_parameters() if p.requires_grad and p.ndim > 1 and not undecayed(n)]
    others = [p for n, p in model.named_parameters() if p.requires_grad and (p.ndim < 2 or undecayed(n))]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def undecayed(name: str) -> bool:
    """Whether a matrix is a table of embeddings rather than a map."""
    return "attention_biases" in name or "_embed" in name or "_token" in name


@dataclass
class Sums:
    """Sums over an interval of the log."""

    steps: int = 0
    loss: float = 0.0
    norm: float = 0.0
    waiting: float = 0.0
    total: float = 0.0
    box: tuple[float, int] = (0.0, 0)
    click: tuple[float, int] = (0.0, 0)
    further: tuple[float, int] = (0.0, 0)


class Trainer:
    """One run in one process.

    Args:
        model: on its device, in training mode.
        recipe: what to do.
        device: where.
        folder: of checkpoint, weights and log.
        minutes: between checkpoints.
    """

    def __init__(self, model: Sam, recipe: Recipe, device: Device, folder: Path, minutes: float = 3.0) -> None:
        self.model, self.recipe, self.device, self.folder, self.minutes = model, recipe, device, folder, minutes
        self.optimizer = optimizer_for(model, recipe)
        self.average = Average(model, recipe.ema)
        self.step, self.seconds, self.world = 0, 0.0, 1

    def resume(self, state: State) -> None:
        """Continues from a checkpoint."""
        self.model.load_state_dict(state.model)
        self.average.load(state.average)
        self.optimizer.load_state_dict(state.optimizer)
        self.step, self.seconds = state.step, state.seconds

    def state(self) -> State:
        """What a checkpoint holds."""
        return State(
            self.step,
            self.seconds,
            self.recipe,
            self.world,
            self.model.state_dict(),
            self.average.state,
            self.optimizer.state_dict(),
        )

    def losses(self, batch: Batch, sums: Sums) -> Tensor:
        """The loss of one batch: the mean over its rounds."""
        with self.device.computing():
            embeddings = self.model.encode(images(batch)).repeat_interleave(self.recipe.prompts, 0)

            def decode(prompt: Prompt) -> Decoded:
                return self.model.decode(embeddings, prompt.coords, prompt.labels, prompt.mask_input)

            count = round_count(self.recipe, self.step)
            total = torch.zeros((), device=self.device.name)
            for i, (prompt, decoded) in enumerate(rounds(decode, batch, count, self.recipe.hard_prompts)):
                with torch.autocast(self.device.name, enabled=False):
                    result = supervised(decoded, batch, prompt.single)
                total = total + result.loss
                note(sums, i, prompt, decoded, result.iou)
        return total / (count + 1)

    def update(self, batch: Batch, sums: Sums) -> None:
        """One optimizer step."""
        rate = learning_rate(self.recipe, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.losses(batch, sums)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(self.keep(batch))
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.average.update(self.model, self.step)
        self.step += 1
        sums.steps += 1
        sums.loss += value
        sums.norm += float(norm)

    def keep(self, batch: Batch) -> str:
        """Saves the batch whose loss is not finite; the message to stop with."""
        path = self.folder / f"batch-{self.step}.pt"
        torch.save(vars(batch), path)
        return f"the loss of step {self.step} is not finite; its batch is in {path}; lower the learning rate"

    def run(self, batches: Iterator[Batch], every: int = 50) -> Iterator[dict[str, float]]:
        """Trains to the recipe's last step; yields and logs a row every `every` steps."""
        journal = Journal(self.folder, self.step)
        self.model.train()
        sums, saved = Sums(), time.monotonic()
        while self.step < self.recipe.steps:
            start = time.monotonic()
            batch = self.device.take(next(batches))
            waited = time.monotonic() - start
            self.update(batch, sums)
            spent = time.monotonic() - start
            self.seconds += spent
            sums.waiting, sums.total = sums.waiting + waited, sums.total + spent
            last = self.step == self.recipe.steps
            if self.step % every == 0 or last:
                row = self.row(sums)
                journal.add(row)
                yield row
                sums = Sums()
            if last or time.monotonic() - saved > 60 * self.minutes:
                save_state(self.folder, self.state())
                saved = time.monotonic()

    def row(self, sums: Sums) -> dict[str, float]:
        """Means of an interval."""
        means = {f"iou_{n}": s / k if k else math.nan for n, (s, k) in
                 {"box": sums.box, "click": sums.click, "further": sums.further}.items()}
        return {
            "step": self.step,
            "seconds": self.seconds,
            "learning_rate": learning_rate(self.recipe, self.step - 1),
            "loss": sums.loss / sums.steps,
            **means,
            "norm": sums.norm / sums.steps,
            "loading_share": sums.waiting / sums.total,
        }


def note(sums: Sums, i: int, prompt: Prompt, decoded: Decoded, iou: Tensor) -> None:
    """Adds the IoU of the masks one would use: of 1 to 3, the one with the best predicted IoU."""
    used = iou[:, 1:].gather(1, decoded.iou[:, 1:].argmax(1, keepdim=True)).squeeze(1)
    kinds = [("further", torch.ones_like(prompt.single))] if i else [("box", prompt.single), ("click", ~prompt.single)]
    for kind, which in kinds:
        total, count = getattr(sums, kind)
        setattr(sums, kind, (total + float(used[which].sum()), count + int(which.sum())))
