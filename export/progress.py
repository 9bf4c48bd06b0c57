"""Steps with their time, on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Numbers the steps of a run and prints how long each took."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done = steps, 0
        self.started = time.perf_counter()

    @contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """Runs one step; what is appended to the yielded list is printed behind its time."""
        self.done += 1
        details: list[str] = []
        print(f"[{self.done}/{self.steps}] {title} ...", end="", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            yield details
        except BaseException:
            print(" failed", file=sys.stderr, flush=True)
            raise
        print(f" {time.perf_counter() - start:.1f} s {' '.join(details)}".rstrip(), file=sys.stderr, flush=True)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started
