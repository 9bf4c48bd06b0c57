"""Keeps what native libraries print off the terminal."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_INFORMATION = (b"INFO:", b"WARNING: All log messages before absl")


@contextmanager
def quiet_native(drop_all: bool = False) -> Iterator[None]:
    """Drops informational lines, or all lines, that native code writes to standard error in this block.

    LiteRT announces its delegate there and libtiff describes each damaged tag; neither has a switch in Python, and
    what matters is raised as an exception as well. Lines that are not dropped come out at the end. It redirects the
    whole process, so it is for commands, not for the library.
    """
    try:
        captured = tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
    except OSError:  # no temporary folder: the lines are shown
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
                if not drop_all and not line.startswith(_INFORMATION):
                    os.write(2, line)
