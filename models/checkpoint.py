"""Parameters of a checkpoint into a model: which file, does it fit, and what does not. Files: `state_file`."""

from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from tinysam.models.sam import Sam
from tinysam.models.state_file import CheckpointError, read_state
from tinysam.models.variants import Variant, build

__all__ = ["CheckpointError", "embedded_weights", "load", "load_state", "read_state", "weights_path"]

_NORMALIZATION = ("pixel_mean", "pixel_std")
"""SAM's mean and standard deviation, which some files carry; here the manifest has them."""


def names(keys: list[str], most: int = 3) -> str:
    """The first few of many keys, for an error message."""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def load_state(model: Sam, state: dict[str, Tensor], source: str) -> None:
    """Puts `state` into `model`; CheckpointError names what is missing, unknown, or of another shape or value."""
    unused = (*model.image_encoder.sizes.unused_keys, *_NORMALIZATION)
    state = {key: value for key, value in state.items() if not key.startswith(unused)}
    expected = model.state_dict()
    missing = [key for key in expected if key not in state]
    unknown = [key for key in state if key not in expected]
    if missing or unknown:
        faults = [f"{len(k)} {what} ({names(k)})" for what, k in (("missing", missing), ("unknown", unknown)) if k]
        raise CheckpointError(f"{source} is for another architecture: {'; '.join(faults)}")
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise CheckpointError(
                f"{source}: {key} has shape {tuple(value.shape)}, expected {tuple(expected[key].shape)}"
            )
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{source}: {key} has values that are not finite")
    model.load_state_dict({key: value.to(expected[key].dtype) for key, value in state.items()})


def embedded_weights(variant: Variant) -> Path | None:
    """Path of the weights that come with the project, or None."""
    if variant.embedded is None:
        return None
    return Path(str(resources.files("tinysam.models") / "weights" / variant.embedded))


def weights_path(variant: Variant, checkpoint: Path | None) -> Path:
    """The user's checkpoint, or else the embedded one; CheckpointError if there is neither."""
    path = checkpoint or embedded_weights(variant)
    if path is None:
        raise CheckpointError(
            f"variant {variant.name} has no embedded weights: give --checkpoint with the official file"
        )
    return path


def load(variant: Variant, checkpoint: Path | None = None, image_size: int | None = None) -> Sam:
    """The model of this variant with the parameters of `checkpoint` (by default the embedded ones)."""
    path = weights_path(variant, checkpoint)
    model = build(variant, image_size)
    load_state(model, read_state(path), f"checkpoint {path}")
    return model
