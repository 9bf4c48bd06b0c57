"""Inference engines: one small class each, imported only when chosen.

`tinysam.runtime.engines.formats` says which formats there are; this module loads a file with the engine of its format.
"""

import os
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.process import quiet_native

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinysam.runtime.manifest import ModelFile, Signature, TensorSpec

    Arrays = dict[str, NDArray[Any]]


class Engine(Protocol):
    """A loaded model file. `run` may be called from several threads at once."""

    def __init__(self, path: Path, file: "ModelFile", threads: int) -> None: ...

    def run(self, signature: str, inputs: "Arrays") -> "Arrays":
        """Runs one signature: named inputs to named float32 outputs, in the file's own layout."""
        ...


def installed(engine: str) -> bool:
    """Whether a package for that engine can be found; imports nothing."""
    return FORMATS[engine].package is not None


def default_engine(offered: Collection[str]) -> str:
    """The first engine that is installed of those that a model has files for; the first offered one if none is."""
    known = [name for name in FORMATS if name in offered] or list(FORMATS)
    return next(filter(installed, known), known[0])


def usable_cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def load(path: Path, file: "ModelFile", threads: int) -> Engine:
    """Loads a model file with the engine that the manifest names for it.

    Raises:
        EngineMissingError: the engine's package is not installed, or too old.
        ArtifactError: the engine cannot read the file, or its tensors are not those of the manifest.
    """
    form = FORMATS[file.engine]
    form.check_installed()
    try:
        engine: type[Engine] = import_module(form.driver).ENGINE
    except ImportError as error:
        raise form.missing(str(error)) from error
    return engine(path, file, threads)


def load_quietly(path: Path, file: "ModelFile", threads: int) -> Engine:
    """As `load`; if the engine announces itself at its first run in a process, this run is made, and nothing printed.

    An announcement would end up in the middle of a line of progress. For commands only, as `quiet_native`.
    """
    import numpy as np

    with quiet_native():
        engine = load(path, file, threads)
        if FORMATS[file.engine].announces:
            name, signature = next(iter(file.signatures.items()))
            shapes = {key: [int(length) for length in spec.shape] for key, spec in signature.inputs.items()}
            engine.run(name, {key: np.zeros(shapes[key], spec.dtype) for key, spec in signature.inputs.items()})
    return engine


def check_tensors(
    path: Path, side: str, expected: Mapping[str, "TensorSpec"], found: Mapping[str, tuple[int | str, ...]]
) -> None:
    """ArtifactError for the first difference between a graph's names and fixed axes and the manifest's."""
    if set(expected) != set(found):
        raise ArtifactError(
            f"{path}: {side}s are {sorted(found)}, the manifest says {sorted(expected)}; export the model again"
        )
    for name, spec in expected.items():
        same = len(spec.shape) == len(found[name]) and all(
            want == have or isinstance(want, str) or not isinstance(have, int)
            for want, have in zip(spec.shape, found[name], strict=False)
        )
        if not same:
            raise ArtifactError(
                f"{path}: {side} {name} has shape {found[name]}, the manifest says {spec.shape}; export the model again"
            )


def unreadable(path: Path, engine: str, error: Exception) -> ArtifactError:
    """What to raise when an engine refuses a file."""
    reason = " ".join(str(error).split())[:200]
    return ArtifactError(f"{path}: {engine} cannot load it ({reason}); export the model again or update {engine}")


def failed(path: Path, engine: str, error: Exception) -> ArtifactError:
    """What to raise when an engine fails while it runs a file."""
    reason = " ".join(str(error).split())[:300]
    return ArtifactError(f"{path}: {engine} failed ({reason}); is there enough memory? Else update {engine}")


def check_signature(path: Path, file: "ModelFile", name: str) -> "Signature":
    """The manifest's signature of that name."""
    if name not in file.signatures:
        raise ArtifactError(f"{path}: no signature {name!r} in the manifest, it has {sorted(file.signatures)}")
    return file.signatures[name]
