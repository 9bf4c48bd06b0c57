"""Reading parameters: official `.pth` and `.pt` files, and `.safetensors`. Nothing in a file is ever executed."""

import pickle
import struct
import zipfile
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tinysam.models.sam import Sam
from tinysam.models.variants import Variant, build


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit the variant; the message is one line."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name; CheckpointError if it is missing, damaged, or holds anything but tensors."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path}: refused, it is damaged or holds Python objects besides tensors; "
            "expected an official state dict"
        ) from error
    except (
        SafetensorError,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"checkpoint {path}: cannot be read ({reason}); is it complete?") from error
    return unwrap(state, path)


def unwrap(state: object, path: Path) -> dict[str, Tensor]:
    """The tensors themselves, also from a file that keeps them under `model` or `state_dict`."""
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"checkpoint {path}: expected a dictionary of tensors, found {type(state).__name__}")
    return state


def names(keys: list[str], most: int = 3) -> str:
    """The first few of many keys, for an error message."""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def load_state(model: Sam, state: dict[str, Tensor], source: str) -> None:
    """Puts `state` into `model`; CheckpointError names what is missing, unknown, or of another shape or value."""
    unused = model.image_encoder.sizes.unused_keys
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
