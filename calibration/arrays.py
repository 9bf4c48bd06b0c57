"""The one array type of calibration, and how far two arrays are apart."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def floats(values: npt.ArrayLike) -> Floats:
    """`values` as float32."""
    return np.asarray(values, np.float32)


def relative_error(found: Floats, expected: Floats) -> float:
    """Norm of the difference over the norm of what is expected; infinite for values that are not finite."""
    if not np.isfinite(found).all():
        return float("inf")
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    return float(np.linalg.norm(found.astype(np.float64) - expected)) / max(norm, 1e-30)
