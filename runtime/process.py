"""What a command asks of its process.

`run_command` ends it with one line and an exit code, `Interrupts` at Ctrl-C and SIGTERM, `quiet_native` keeps what
native libraries print off the terminal, `use_one_blas_thread` keeps NumPy to one thread, `reserve_blas_memory` its
working memory, `trim` gives freed memory back to the system.
"""

import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_INFORMATION = (b"INFO:", b"WARNING: All log messages before absl")


def one_line(error: Exception) -> str:
    """What went wrong; of an error that a worker process passed on with its traceback, the last line."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[-1] if lines[0].startswith("Caught ") else lines[0]


def run_command(name: str, work: Callable[[], None], stopped: str = "stopped") -> int:
    """Runs `work`; exit code 0, 1 after an error, 130 and the line `stopped` after Ctrl-C."""
    try:
        work()
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: {stopped}", file=sys.stderr)
        return 130
    return 0


class Interrupts:
    """Ends the command at Ctrl-C and at SIGTERM, so that `finally` blocks remove partial files.

    The exception alone does not always arrive: a finalizer swallows it, and native code on its way may turn it into
    an error of its own. So the request is kept here as well. Finalizers of partial files may print errors that follow
    from the interruption; they are not shown.
    """

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._end)
        # Shells let commands in the background ignore Ctrl-C.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._end)

    def _end(self, _signal: int, _frame: object) -> None:
        self.asked = True
        sys.unraisablehook = lambda _: None
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raises KeyboardInterrupt if the end was asked for."""
        if self.asked:
            raise KeyboardInterrupt


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
        # Ctrl-C may come at any line: whatever it finds, the terminal comes back.
        try:
            os.dup2(captured.fileno(), 2)
            yield
        finally:
            try:
                sys.stderr.flush()
            finally:
                os.dup2(terminal, 2)
            os.close(terminal)
            captured.seek(0)
            for line in captured:
                if not drop_all and not line.startswith(_INFORMATION):
                    os.write(2, line)


def use_one_blas_thread() -> None:
    """Has no effect once NumPy is imported.

    OpenBLAS, which NumPy brings, starts a thread for each core as soon as it is loaded, and these spin between
    products. Products of the runtime are small: with two cores that is a fifth of a click's processor time, and more
    than a quarter of everything's.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def reserve_blas_memory() -> None:
    """Has OpenBLAS take its working memory now: where none is left, a later product would ask for it without end."""
    import numpy as np

    square = np.zeros((256, 256), np.float32)
    np.matmul(square, square, out=square)


def trim() -> None:
    """Asks the C library, which otherwise keeps what it may need again; only glibc can be asked."""
    if sys.platform.startswith("linux"):
        give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if give_back is not None:
            give_back(0)
