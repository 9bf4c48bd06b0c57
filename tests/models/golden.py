"""Deterministic parameters and the official model's outputs over them, as numpy arrays."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinysam.models.checkpoint import load_state
from tinysam.models.sam import Sam
from tinysam.models.variants import build, get_variant


def parameters(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """State dict of `name`, filled by the recipe that lies beside the outputs."""
    spec = importlib.util.spec_from_file_location("golden_fill", folder / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shapes = json.loads((folder / f"{name}_state_dict.json").read_text())
    return {key: torch.from_numpy(np.asarray(value)) for key, value in module.fill(shapes).items()}


def model(folder: Path, name: str) -> Sam:
    """Our model with those parameters."""
    sam = build(get_variant(name))
    load_state(sam, parameters(folder, name), "golden parameters")
    return sam


def outputs(folder: Path, name: str) -> Any:
    """The official outputs."""
    return np.load(folder / f"{name}.npz", allow_pickle=False)


def relative_error(found: Any, expected: Any) -> float:
    """Norm of the difference over the norm of what is expected."""
    expected = np.asarray(expected, np.float64)
    return float(np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected))


def prompt(arrays: Any, name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Coordinates, labels and mask input of one of the stored prompts, with SAM's padding point where it adds one."""
    coords, labels = [], []
    if f"{name}.point_coords" in arrays:
        coords.append(arrays[f"{name}.point_coords"])
        labels.append(arrays[f"{name}.point_labels"])
    if f"{name}.boxes" in arrays:
        boxes = arrays[f"{name}.boxes"]
        coords.append(boxes.reshape(-1, 2, 2))
        labels.append(np.tile(np.float32([[2, 3]]), (len(boxes), 1)))
    else:
        count = len(coords[0])
        coords.append(np.zeros((count, 1, 2), np.float32))
        labels.append(-np.ones((count, 1), np.float32))
    mask = torch.from_numpy(arrays["mask_input"].astype(np.float32)) if "mask" in name else None
    return (
        torch.from_numpy(np.concatenate(coords, axis=1)),
        torch.from_numpy(np.concatenate(labels, axis=1)),
        mask,
    )
