"""Ctrl-C and SIGTERM in the commands."""

import signal
import sys


class Interrupts:
    """Ends the command at Ctrl-C and at SIGTERM, so that `finally` blocks remove partial files.

    The exception alone does not always arrive: a finalizer swallows it, and native code on its way may turn it into
    an error of its own. What was asked for is therefore kept here as well. Finalizers of files that it leaves half
    written complain on standard error; that says nothing new, so it is not shown.
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
