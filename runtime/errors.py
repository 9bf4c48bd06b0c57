"""Errors that the command prints as one line, and the exit codes that go with them.

Each names what came in, what was expected and what to do.
"""

EXIT_FAILED, EXIT_USAGE, EXIT_ARTIFACTS, EXIT_ENGINE, EXIT_OUTPUT, EXIT_INTERRUPTED = 1, 2, 3, 4, 5, 130


class TinySamError(ValueError):
    """Base of everything the runtime raises about its input."""


class ArtifactError(TinySamError):
    """An artifact folder, its manifest or one of its files cannot be used."""


class ImageError(TinySamError):
    """A file or an array is not an image that can be segmented."""


class PromptError(TinySamError):
    """A point, box, label or mask prompt makes no sense for the image."""


class OrderError(RuntimeError):
    """A call came before the one it needs."""


class EngineMissingError(ImportError):
    """The chosen engine is not installed."""


class OutputError(TinySamError):
    """A result cannot be written."""


class OutputNameError(OutputError):
    """A result cannot be written under its name; others in the same folder can."""
