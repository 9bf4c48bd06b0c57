"""Ctrl-C and SIGTERM in the commands."""

import signal
import sys


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
