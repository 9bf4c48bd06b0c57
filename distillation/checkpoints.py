"""The state of a run on disk: complete or absent, never half-written."""

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from tinysam.distillation.recipe import RESUMABLE, Recipe
from tinysam.runtime.atomic import write_atomically

NAME = "checkpoint.pt"
WEIGHTS = "weights.safetensors"


class ResumeError(ValueError):
    """A checkpoint that cannot be continued; the message is one line."""


@dataclass(frozen=True)
class State:
    """Everything a run needs to continue as if it had never stopped. Samples and rounds depend on `step` alone."""

    step: int
    """Steps done."""
    seconds: float
    """Time spent in them."""
    recipe: Recipe
    world: int
    """Processes of the run."""
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    teacher: str = ""
    """Variant and SHA-256 of the teacher's weights, if there is one."""


def save_state(folder: Path, state: State) -> None:
    """Writes the checkpoint, and the averaged weights as fp16 safetensors in the official key layout beside it."""
    buffer = io.BytesIO()
    torch.save({**vars(state), "recipe": state.recipe.to_dict()}, buffer)
    write_atomically(folder / NAME, buffer.getvalue())
    write_atomically(folder / WEIGHTS, save(half(state.average)))


def half(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors as fp16, all others as they are."""
    return {k: v.half().contiguous() if v.is_floating_point() else v.contiguous() for k, v in weights.items()}


def load_state(folder: Path, recipe: Recipe, world: int, teacher: str = "") -> State:
    """The checkpoint of a run, if `recipe` may continue it.

    Raises:
        ResumeError: Damaged, made by a different number of processes, with another teacher, or by settings that may not
            change.
    """
    path = folder / NAME
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = State(**{**content, "recipe": Recipe.from_dict(content["recipe"])})
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResumeError(f"{path}: cannot be continued ({reason})") from error
    if state.world != world:
        raise ResumeError(f"{path}: made by {state.world} processes, not {world}: start as many")
    if state.teacher != teacher:
        teachers = [which or "no teacher" for which in (state.teacher, teacher)]
        raise ResumeError(
            f"{path}: learned from {teachers[0]}, not from {teachers[1]}: give the same, or another output folder"
        )
    old, new = state.recipe.to_dict(), recipe.to_dict()
    if changed := [f"{k} {old[k]} -> {new[k]}" for k in old if old[k] != new[k] and k not in RESUMABLE]:
        raise ResumeError(f"{path}: these settings cannot change: {', '.join(changed)}; use another output folder")
    return state
