"""GELU in NumPy."""

import numpy as np
import numpy.typing as npt

from tinysam.calibration.arrays import Floats, floats


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
