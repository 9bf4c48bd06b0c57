"""Memory that was freed, given back to the system."""

import ctypes
import sys


def trim() -> None:
    """Asks the C library, which otherwise keeps what it may need again; only glibc can be asked."""
    if sys.platform.startswith("linux"):
        give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if give_back is not None:
            give_back(0)
