"""GELU in NumPy, and as integers in ONNX Runtime.

ONNX Runtime has an integer sigmoid (a table of 256 entries) and an integer product.

GELU is x times the normal distribution function P. A sigmoid comes near P, but reaches 0 and 1 too slowly:
x sigmoid(a x) is off by 0.014 at best (Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2). Stretched about its
middle and cut off it comes closer, 0.009 at most and 0.0036 in place of 0.0086 in the mean square:

    P(x) = clip(b (sigmoid(a x) - 1/2) + 1/2, 0, 1),  b = (255 + n) / (255 - n)

This costs no instruction. Written as integers with a step of 1 / (255 + n), the sigmoid saturates where P is 1; read
with a step of 1 / (255 - n) and a zero point n higher, it is stretched. x itself ends where P is 0, below which GELU is
nearly 0: values further left saturate there.
"""

import math

import numpy as np
import numpy.typing as npt

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.qparams import QParams, Range

SLOPE = 1.64
"""a, for the least squared error with values that spread like a normal distribution of standard deviation 1.4."""
OFFSET = 3
"""n: with it the largest error is 0.009, with 2 and 4 the squared error is larger or the largest error 0.013."""
LOWEST = math.log(OFFSET / 255) / SLOPE
"""Where P is 0, -2.71."""


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


def gelu_source(span: Range) -> Range:
    """The range of a tensor before a GELU, cut off where GELU counts as 0."""
    return Range(max(span.low, LOWEST), max(span.high, LOWEST))


def gate_params(signed: bool) -> tuple[QParams, QParams]:
    """What the sigmoid is written with, and what it is read with."""
    bottom = -128 if signed else 0
    return QParams(1 / (255 + OFFSET), bottom, signed), QParams(1 / (255 - OFFSET), bottom + OFFSET, signed)
