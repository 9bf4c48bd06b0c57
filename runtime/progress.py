"""A one-line progress bar."""

import time
from typing import TextIO

_WIDTH = 24


class Progress:
    """Counts pictures on a terminal; shows nothing if there is only one, or if the stream is not a terminal."""

    def __init__(self, total: int, stream: TextIO, shown: bool = True) -> None:
        self._total, self._stream = total, stream
        self._shown = shown and total > 1 and stream.isatty()
        self._done, self._start = 0, time.monotonic()

    def __enter__(self) -> "Progress":
        self._draw("")
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def advance(self, name: str) -> None:
        """One more picture is done."""
        self._done += 1
        self._draw(name)

    def clear(self) -> None:
        """Removes the bar so that other text can be printed."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _draw(self, name: str) -> None:
        if not self._shown:
            return
        filled = _WIDTH * self._done // self._total
        left = (time.monotonic() - self._start) / self._done * (self._total - self._done) if self._done else 0.0
        bar = "#" * filled + "-" * (_WIDTH - filled)
        self._stream.write(f"\r\x1b[K[{bar}] {self._done}/{self._total} {left:.0f} s left {name[-40:]}")
        self._stream.flush()
