"""Errors of an export; the message of each is one line that says what to do."""


class ExportError(RuntimeError):
    """The export cannot be done, and nothing was published."""


class ParityError(ExportError):
    """A written file does not compute what the PyTorch model computes."""
