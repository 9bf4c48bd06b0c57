"""Steps with their time, on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Numbers the steps of a run and prints how long each took."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done = steps, 0
        self.started = self.step_started = time.perf_counter()
        self.title = ""

    @contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """Runs one step; what is appended to the yielded list is printed behind its time."""
        self.done += 1
        details: list[str] = []
        self.title = f"[{self.done}/{self.steps}] {title}"
        print(f"{self.title} ...", end="", file=sys.stderr, flush=True)
        start = self.step_started = time.perf_counter()
        try:
            yield details
        except BaseException:
            print(" failed", file=sys.stderr, flush=True)
            raise
        print(f" {time.perf_counter() - start:.1f} s {' '.join(details)}".rstrip(), file=sys.stderr, flush=True)

    def tell(self, done: int, total: int) -> None:
        """On a terminal: how much of the current step is done, and how long the rest will take."""
        if sys.stderr.isatty():
            left = (time.perf_counter() - self.step_started) * (total - done) / max(1, done)
            note = f"{done}/{total}, {left:.0f} s left" if done < total else ""
            print(f"\r\033[K{self.title} ... {note}", end="", file=sys.stderr, flush=True)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started
