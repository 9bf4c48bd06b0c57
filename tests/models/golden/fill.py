"""Parameters for a state dict of the SAM family that depend on nothing but the keys' names and a seed."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


def fill(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Array]:
    """Values for every key: small enough that a forward pass stays finite, none at its initial value."""
    return {key: values(key, tuple(shape), seed) for key, shape in shapes.items()}


def values(key: str, shape: tuple[int, ...], seed: int) -> Array:
    """The values of one key. Its kind is told by its last name, by its shape, or by a word in it."""
    random = np.random.default_rng([zlib.crc32(key.encode()), seed])
    normal = random.standard_normal(shape)
    kind = key.split(".")[-1]
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if kind == "running_var":
        found = random.uniform(0.5, 1.5, shape)
    elif kind == "weight" and len(shape) == 1:  # of a norm
        found = random.uniform(0.8, 1.2, shape)
    else:
        found = scale(key, kind, shape) * normal
    return np.asarray(found, np.float32)


def scale(key: str, kind: str, shape: tuple[int, ...]) -> float:
    """Standard deviation of a key's values."""
    if kind in ("running_mean", "bias"):
        return 0.05
    if kind in ("attention_biases", "pos_embed") or "rel_pos" in kind:
        return 0.2
    if ("embed" in key and len(shape) == 2 and shape[0] == 1) or "token" in key:
        # a token mixer's weights fall under this, too
        return 0.3
    if kind == "positional_encoding_gaussian_matrix":
        return 1.0
    return float(1 / np.sqrt(max(1, int(np.prod(shape[1:])))))
