"""Scales and zero points of 8-bit tensors."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.errors import CalibrationError


@dataclass(frozen=True)
class Range:
    """The real numbers that an 8-bit tensor has to cover."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low <= self.high):
            raise CalibrationError(f"range {self.low} to {self.high}: expected finite numbers in order")


@dataclass(frozen=True)
class QParams:
    """real = scale * (integer - zero_point)."""

    scale: float
    zero_point: int
    signed: bool

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        return (-128, 127) if self.signed else (0, 255)

    def stretched(self, factor: float) -> "QParams":
        """The same integers read as numbers `factor` times as large."""
        return QParams(float(np.float32(self.scale * factor)), self.zero_point, self.signed)


def activation_qparams(span: Range, signed: bool) -> QParams:
    """Asymmetric parameters that cover the range and represent zero exactly."""
    low, high = min(span.low, 0.0), max(span.high, 0.0)
    bottom, top = (-128, 127) if signed else (0, 255)
    scale = max((high - low) / 255, 1e-12)
    zero_point = int(np.clip(round(bottom - low / scale), bottom, top))
    return QParams(float(np.float32(scale)), zero_point, signed)


def fake_quantize(values: Floats, params: QParams) -> Floats:
    """What is left of `values` after quantization."""
    bottom, top = params.limits
    steps = np.clip(np.rint(values / np.float32(params.scale)) + params.zero_point, bottom, top) - params.zero_point
    return floats(steps * np.float32(params.scale))


def weight_scales(weight: Floats, axis: int) -> Floats:
    """Symmetric scale of every channel, so that its largest weight becomes 127; -128 is not used."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others)
    return floats(np.maximum(largest / 127, 1e-12))


def quantize_weight(weight: Floats, scales: Floats, axis: int) -> npt.NDArray[np.int8]:
    """Integers in [-127, 127]."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.clip(np.rint(weight / scales.reshape(shape)), -127, 127).astype(np.int8)
