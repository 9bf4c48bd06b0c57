"""Ranges from observations: the extremes, percentiles, or the least squared error."""

import numpy as np

from tinysam.calibration.arrays import floats
from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.observers import Observation
from tinysam.calibration.qparams import Range, activation_qparams, fake_quantize

METHODS = ("minmax", "percentile", "mse")
PERCENTILE = 99.99
CANDIDATES = 60
"""Fractions of the extremes that the search tries."""


def minmax(seen: Observation) -> Range:
    """Covers everything that was seen."""
    return Range(seen.low, seen.high)


def percentile(seen: Observation) -> Range:
    """Leaves out the outermost values on both sides."""
    low, high = np.percentile(seen.values, [100 - PERCENTILE, PERCENTILE])
    return Range(float(low), float(high))


def mse(seen: Observation) -> Range:
    """The common fraction of both extremes that loses least in the mean square."""
    values = np.append(seen.values, floats([seen.low, seen.high]))
    best, least = minmax(seen), float("inf")
    for fraction in np.linspace(1.0, 0.2, CANDIDATES):
        span = Range(seen.low * fraction, seen.high * fraction)
        lost = float(np.square(values - fake_quantize(values, activation_qparams(span, signed=True))).mean())
        if lost < least:
            best, least = span, lost
    return best


def find_ranges(seen: dict[str, Observation], method: str) -> dict[str, Range]:
    """The range of every tensor by one of `METHODS`.

    Raises:
        CalibrationError: unknown method.
    """
    rules = {"minmax": minmax, "percentile": percentile, "mse": mse}
    if method not in rules:
        raise CalibrationError(f"range method {method!r}: expected one of {', '.join(METHODS)}")
    return {name: rules[method](observation) for name, observation in seen.items()}
