"""Every written file is run, through the runtime's own engines, and compared with the PyTorch model."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinysam.calibration.arrays import Floats
from tinysam.export.engine import load_engine
from tinysam.export.errors import ParityError
from tinysam.export.tensors import run_decoder
from tinysam.runtime.manifest import ModelFile

FP32_TOLERANCE = {"onnx": 1e-4, "tflite": 1e-3}
"""Largest relative error of a float file, by engine."""


def relative_error(found: Floats, expected: Floats) -> float:
    """Norm of the difference over the norm of what is expected; infinite for values that are not finite."""
    if not np.isfinite(found).all():
        return float("inf")
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    return float(np.linalg.norm(found.astype(np.float64) - expected)) / max(norm, 1e-30)


def compare(name: str, found: Mapping[str, Floats], expected: Mapping[str, Floats], tolerance: float) -> float:
    """Largest relative error over the outputs.

    Raises:
        ParityError: an output has another name or shape, or differs by more than the tolerance.
    """
    if set(found) != set(expected):
        raise ParityError(f"{name}: outputs are {sorted(found)}, expected {sorted(expected)}")
    worst = 0.0
    for output, want in expected.items():
        have = found[output]
        if have.shape != want.shape:
            raise ParityError(f"{name}: {output} has shape {have.shape}, expected {want.shape}")
        error = relative_error(have, want)
        if not error <= tolerance:
            difference = float(np.abs(have - want).max())
            raise ParityError(
                f"{name}: {output} differs from PyTorch by {error:.2e} (largest difference {difference:.3g}), "
                f"tolerance {tolerance:.0e}; nothing was published"
            )
        worst = max(worst, error)
    return worst


def check_file(
    folder: Path, file: ModelFile, cases: list[tuple[str, Mapping[str, Floats], Mapping[str, Floats]]], threads: int
) -> dict[str, Any]:
    """Runs a float file on (signature, inputs, expected outputs) cases; what the manifest says of it.

    Raises:
        ParityError: see `compare`.
    """
    engine = load_engine(folder, file, threads)
    run = engine.run if file.part == "encoder" else partial(run_decoder, engine)
    tolerance = FP32_TOLERANCE[file.engine]
    errors = [
        compare(f"{file.path} {signature}".strip(), run(signature, dict(inputs)), expected, tolerance)
        for signature, inputs, expected in cases
    ]
    return {"reference": "torch", "relative_error": max(errors), "tolerance": tolerance, "cases": len(cases)}
