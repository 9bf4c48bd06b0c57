"""Keeps the greetings of native libraries off the terminal."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_CHATTER = (b"INFO:", b"WARNING: All log messages before absl")


@contextmanager
def quiet_engine() -> Iterator[None]:
    """Drops informational lines that native code writes to standard error; everything else comes out at the end.

    LiteRT announces its delegate there and has no switch for it. For the command only: it redirects the whole process.
    """
    try:
        captured = tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
    except OSError:  # nowhere to write: rather chatter than no result
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            captured.seek(0)
            for line in captured:
                if not line.startswith(_CHATTER):
                    os.write(2, line)
