"""One small class per inference engine, imported only when chosen."""

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from tinysam.runtime.errors import ArtifactError, EngineMissingError
from tinysam.runtime.manifest import ModelFile, Signature

PACKAGES = {
    "onnx": ("onnxruntime", "tinysam.runtime.engines.onnx"),
    "tflite": ("ai_edge_litert", "tinysam.runtime.engines.tflite"),
}
"""Engine name -> (package that has to be installed, module of ours that drives it)."""

Arrays = dict[str, NDArray[Any]]


class Engine(Protocol):
    """A loaded model file. `run` may be called from several threads at once."""

    def __init__(self, path: Path, file: ModelFile, threads: int) -> None: ...

    def run(self, signature: str, inputs: Arrays) -> Arrays:
        """Runs one signature: named inputs to named float32 outputs, in the file's own layout."""
        ...


def installed(engine: str) -> bool:
    """Whether the package of that engine can be found; imports nothing."""
    return find_spec(PACKAGES[engine][0]) is not None


def missing(engine: str, reason: str = "not found") -> EngineMissingError:
    """What to raise when an engine's package does not import; names the extra that brings it."""
    return EngineMissingError(
        f"backend {engine} needs the package {PACKAGES[engine][0]} ({reason}): pip install tinysam-edge[{engine}]"
    )


def usable_cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def load(path: Path, file: ModelFile, threads: int) -> Engine:
    """Loads a model file with the engine that the manifest names for it.

    Raises:
        EngineMissingError: the engine's package is not installed.
        ArtifactError: the engine cannot read the file, or its tensors are not those of the manifest.
    """
    module = PACKAGES[file.engine][1]
    try:
        engine: type[Engine] = import_module(module).ENGINE
    except ImportError as error:
        raise missing(file.engine, str(error)) from error
    return engine(path, file, threads)


def check_tensors(path: Path, side: str, expected: dict[str, Any], found: dict[str, tuple[int | str, ...]]) -> None:
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


def check_signature(path: Path, file: ModelFile, name: str) -> Signature:
    """The manifest's signature of that name."""
    if name not in file.signatures:
        raise ArtifactError(f"{path}: no signature {name!r} in the manifest, it has {sorted(file.signatures)}")
    return file.signatures[name]
