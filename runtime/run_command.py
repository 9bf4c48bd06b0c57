"""How a command ends: with one line on standard error and an exit code if something is wrong."""

import sys
from collections.abc import Callable


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
