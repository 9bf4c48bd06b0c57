"""The rate of a large matrix product on this machine: what an encoder can at best come near to.

A square product of 2048 rows is large enough that nothing but multiplications counts, and small enough for a Raspberry
Pi. It is measured in every engine that is installed, with the threads of the case; the fastest is the limit. The models
for it are written byte by byte beside each engine, since the runtime needs no package that writes models.
"""

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tinysam.runtime import engines
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.engines.known_bugs import ARM_MACHINES

SIDE = 2048
GMAC = SIDE**3 / 1e9
RUNS = 2
PRECISIONS = ("fp32", "int8")
"""Of products."""

Job = Callable[[], Any]


def product_precision(precision: str) -> str:
    """The product that files of a precision are compared with, one of `PRECISIONS`.

    fp16 files are compared with fp32: that is what LiteRT computes them in, except where the processor has fp16
    arithmetic, which may then exceed it.
    """
    return "int8" if precision == "int8" else "fp32"


def product_jobs(precision: str, threads: int, side: int = SIDE) -> dict[str, Job]:
    """One product of (side, side) matrices for each installed engine, by its name."""
    tools = {name: form.bench_tools() for name, form in FORMATS.items() if engines.installed(name)}
    return {name: tool.product_job(precision, threads, side) for name, tool in tools.items() if tool}


def product_rate(precision: str, threads: int, side: int = SIDE) -> float:
    """GMAC per second of the fastest engine, best of a few runs; 0 if no engine is installed."""
    rate = 0.0
    for job in product_jobs(precision, threads, side).values():
        job()
        rate = max(rate, side**3 / 1e9 / min(_seconds(job) for _ in range(RUNS)))
    return rate


def _seconds(job: Job) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def left_type(precision: str) -> type[np.generic]:
    """What the activations of INT8 files are fastest as: int8 on ARM, uint8 on x86."""
    if product_precision(precision) == "fp32":
        return np.float32
    return np.int8 if platform.machine() in ARM_MACHINES else np.uint8


def matrix(kind: type[np.generic], side: int) -> np.ndarray[Any, Any]:
    """(side, side) whole numbers, always the same."""
    random = np.random.default_rng(0)
    low, high = (0, 255) if kind is np.uint8 else (-127, 127)
    return random.integers(low, high, (side, side)).astype(kind)
