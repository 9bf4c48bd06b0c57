"""What the command prints: lines, errors and a progress bar; no stream and no name can end it."""

import os
import sys
import time
from contextlib import suppress
from typing import TextIO

from tinysam.runtime.errors import OutputError

_WIDTH = 24


def prepare_streams() -> None:
    """Opens the standard streams that the caller has closed, and lets them print any name.

    A file that is opened later would otherwise get the number of a closed stream, and what is printed would go there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A terminal's encoding may lack letters of a file's name.
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def printable(text: object) -> str:
    """The text on one line: line breaks, control characters and undecodable bytes of a file's name are escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(text)
    )


def say(lines: list[str]) -> None:
    """Prints lines; goes on in silence if whoever was listening has left (`tinysam-run ... | head`).

    Raises:
        OutputError: standard output is a file that cannot be written.
    """
    try:
        print("\n".join(map(printable, lines)), flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"standard output cannot be written ({error.strerror or error})") from error


def note(about: str, message: object) -> None:
    """Prints what a user should know about a picture or folder on standard error."""
    _complain(f"{about}: note: {message}")


def fail(message: object, code: int) -> int:
    """Prints an error on standard error; returns `code`."""
    _complain(f"error: {' '.join(str(message).split())}")
    return code


def _complain(message: str) -> None:
    with suppress(OSError):
        print(f"tinysam-run: {printable(message)}", file=sys.stderr, flush=True)


class Progress:
    """Counts pictures on a terminal; shows nothing if there is only one, or if the stream is not a terminal."""

    def __init__(self, total: int, stream: TextIO, shown: bool = True) -> None:
        self.total, self.done = total, 0
        self._stream, self._start = stream, time.monotonic()
        self._shown = shown and total > 1 and stream.isatty()

    def __enter__(self) -> "Progress":
        self._draw("")
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def advance(self, name: str) -> None:
        """One more picture is done."""
        self.done += 1
        self._draw(name)

    def clear(self) -> None:
        """Removes the bar so that other text can be printed."""
        self._write("\r\x1b[K")

    def _draw(self, name: str) -> None:
        filled = _WIDTH * self.done // self.total
        left = (time.monotonic() - self._start) / self.done * (self.total - self.done) if self.done else 0.0
        bar = "#" * filled + "-" * (_WIDTH - filled)
        self._write(f"\r\x1b[K[{bar}] {self.done}/{self.total} {left:.0f} s left {printable(name)[-40:]}")

    def _write(self, text: str) -> None:
        if self._shown:
            with suppress(OSError):
                self._stream.write(text)
                self._stream.flush()
