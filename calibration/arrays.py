"""The one array type of calibration."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def floats(values: npt.ArrayLike) -> Floats:
    """`values` as float32."""
    return np.asarray(values, np.float32)
