"""Outputs of official code over parameters that anyone can make: parity without real weights.

1. `fill` gives every key of an official state dict values that depend on its name and a seed alone.
2. The official code ran with them on scikit-image's `data.coffee()`, resized to 1024 pixels.
3. `<model>.npz` beside this file hold some of what came out: every eighth cell of the low-res masks, every fourth of
   the embedding, in float16 where they are large. `reduce.py` made them from the whole arrays.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from skimage import data

from tests.models.golden.fill import fill
from tinysam.models import Sam, build, get_variant, normalize
from tinysam.models.checkpoint import load_state

FOLDER = Path(__file__).parent
IMAGE_SIZE = 1024
EMBEDDING = np.s_[:, 2::4, 2::4]
"""Which cells of a (channels, grid, grid) embedding are kept."""
LOW_RES = np.s_[..., 3::8, 3::8]
"""Which cells of (..., side, side) low-res masks are kept."""
MASK_ROWS = np.s_[:, 3::8]
"""Which rows of (masks, height, width) masks of the photograph are kept."""

RESIZED = np.s_[3::8, 3::8]
"""Which pixels of the resized (height, width, 3) photograph are kept."""


def outputs(name: str) -> Any:
    """What the official code of a model gave, and what it was asked."""
    return np.load(FOLDER / f"{name}.npz", allow_pickle=False)


def official_shapes(name: str) -> dict[str, list[int]]:
    """Keys of the official checkpoint with the shapes of their tensors."""
    shapes: dict[str, list[int]] = json.loads(outputs(name)["state_dict"].tobytes())
    return shapes


def parameters(name: str) -> dict[str, torch.Tensor]:
    """An official checkpoint's keys with the values that the official code ran with."""
    seed = int(outputs(name)["seed"])
    return {key: torch.from_numpy(np.asarray(value)) for key, value in fill(official_shapes(name), seed).items()}


def model(name: str) -> Sam:
    """Our model with those parameters."""
    sam = build(get_variant(name))
    load_state(sam, parameters(name), "golden parameters")
    return sam


def photograph() -> npt.NDArray[np.uint8]:
    """(400, 600, 3) RGB."""
    pixels: npt.NDArray[np.uint8] = data.coffee()
    return pixels


def image() -> torch.Tensor:
    """The photograph as the encoders take it: (1, 3, 1024, 1024)."""
    height, width, _ = photograph().shape
    resized = Image.fromarray(photograph()).resize(
        (IMAGE_SIZE, round(height * IMAGE_SIZE / width)), Image.Resampling.BILINEAR
    )
    pixels = normalize(torch.from_numpy(np.asarray(resized, np.float32)).permute(2, 0, 1)[None])
    return torch.nn.functional.pad(pixels, (0, IMAGE_SIZE - pixels.shape[3], 0, IMAGE_SIZE - pixels.shape[2]))


def relative_error(found: Any, expected: Any) -> float:
    """Norm of the difference over the norm of what is expected."""
    expected = np.asarray(expected, np.float64)
    return float(np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected))


def prompt(arrays: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates (P, N, 2) and labels (P, N) of one of the stored prompts, with SAM's padding point where it adds one.

    Coordinates are in pixels of the 1024 input.
    """
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
    return torch.from_numpy(np.concatenate(coords, axis=1)), torch.from_numpy(np.concatenate(labels, axis=1))
