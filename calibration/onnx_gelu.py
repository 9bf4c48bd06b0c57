"""GELU in INT8 ONNX graphs.

ONNX Runtime has no integer GELU: dequantizing, computing erf in float and quantizing again costs more than the
convolutions around it. It does have an integer sigmoid (a table of 256 entries) and an integer product, and
`x * sigmoid(a * x)` comes within 0.02 of GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2), about one step
of an 8-bit GELU output. `a` costs nothing: the sigmoid reads the same integers with a scale `a` times as large. It is
chosen per layer for the least squared error over the values that the layer really sees.
"""

import numpy as np
import numpy.typing as npt

from tinysam.calibration.arrays import Floats, floats

PUBLISHED_SLOPE = 1.702
SLOPES = np.linspace(1.55, 1.85, 31)


def erf(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Error function to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26)."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    coefficients = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    polynomial = np.zeros_like(x)
    for c in coefficients:
        polynomial = (polynomial + c) * t
    return np.asarray(np.sign(x) * (1 - polynomial * np.exp(-x * x)))


def gelu(x: Floats) -> Floats:
    """x times the normal distribution function."""
    wide = x.astype(np.float64)
    return floats(wide * 0.5 * (1 + erf(wide / np.sqrt(2))))


def sigmoid_gelu(x: Floats, slope: float) -> Floats:
    """x * sigmoid(slope * x)."""
    return floats(x / (1 + np.exp(-np.clip(slope * x, -80, 80))))


def best_slope(values: Floats) -> float:
    """The slope whose sigmoid form is closest to GELU in the mean square over `values`."""
    exact = gelu(values)
    losses = [float(np.square(sigmoid_gelu(values, slope) - exact).mean()) for slope in SLOPES]
    return float(SLOPES[int(np.argmin(losses))])
