"""Ranges from observations: the extremes, percentiles, or the least squared error."""

from collections.abc import Callable

import numpy as np

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.gelu import gelu
from tinysam.calibration.observers import Observation
from tinysam.calibration.qparams import Range, activation_qparams, fake_quantize

METHODS = ("minmax", "percentile", "mse")
PERCENTILE = 99.99
FRACTIONS = np.linspace(1.0, 0.1, 46)
"""Of the extremes, that the search tries."""
ROUNDS = 3
"""The search goes over both extremes so often."""
MOST_SAMPLES = 16384
"""Values of a tensor that the search looks at."""
GELU_FLAT = 2.0
"""GELU of less than minus this is above -0.05."""


def minmax(seen: Observation) -> Range:
    """Covers everything that was seen."""
    return Range(seen.low, seen.high)


def percentile(seen: Observation) -> Range:
    """Leaves out the outermost values on both sides."""
    low, high = np.percentile(seen.values, [100 - PERCENTILE, PERCENTILE])
    return Range(float(low), float(high))


def mse(seen: Observation, read_as: Callable[[Floats], Floats] = lambda values: values) -> Range:
    """The extremes, each cut off by a fraction of its own, that lose least in the mean square.

    Args:
        seen: of the tensor.
        read_as: what the only reader makes of the values: an error that GELU flattens does not count.
    """
    some = seen.values[:: max(1, len(seen.values) // MOST_SAMPLES)]
    values = np.append(some, floats([seen.low, seen.high]))
    weights = np.append(np.ones(len(some)), np.full(2, len(some) / len(seen.values)))  # extremes count as one sample
    wanted = read_as(values)

    def lost(span: Range) -> float:
        rounded = fake_quantize(values, activation_qparams(span, signed=True))
        return float(np.square(wanted - read_as(rounded)) @ weights)

    best = minmax(seen)
    least = lost(best)
    for _ in range(ROUNDS):
        before = best
        for fraction in FRACTIONS:
            for span in (Range(seen.low * fraction, best.high), Range(best.low, seen.high * fraction)):
                found = lost(span)
                if found < least:
                    best, least = span, found
        if best == before:
            break
    return best


def behind_gelu(seen: Observation) -> Range:
    """`mse` of what GELU makes of a tensor; what lies below -`GELU_FLAT` is nearly zero there and may be cut off."""
    span = mse(seen, gelu)
    return Range(min(span.low, max(seen.low, -GELU_FLAT)), span.high)


def find_ranges(seen: dict[str, Observation], method: str, into_gelu: frozenset[str] = frozenset()) -> dict[str, Range]:
    """The range of every tensor by one of `METHODS`.

    Args:
        seen: by tensor.
        method: one of `METHODS`.
        into_gelu: tensors that nothing but GELU reads.

    Raises:
        CalibrationError: unknown method.
    """
    rules: dict[str, Callable[[Observation], Range]] = {"minmax": minmax, "percentile": percentile, "mse": mse}
    if method not in rules:
        raise CalibrationError(f"range method {method!r}: expected one of {', '.join(METHODS)}")
    return {
        name: behind_gelu(found) if method == "mse" and name in into_gelu else rules[method](found)
        for name, found in seen.items()
    }
