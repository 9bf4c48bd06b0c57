"""The model files whose cost is reported: those of artifact folders, asked as one click asks them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinysam.runtime.manifest import ModelFile, read_manifest, verify_file

CLICK = (1, 2)
"""One prompt of two points: the one that was clicked, and SAM's padding point."""


@dataclass(frozen=True)
class Subject:
    """One file to measure."""

    model: str
    """As `nano-448`."""
    part: str
    engine: str
    precision: str
    path: Path
    signature: str | None
    """Of a TFLite file."""
    lengths: dict[str, int]
    """Of an ONNX file's free axes."""


def subjects(artifacts: Path, parts: tuple[str, ...]) -> Iterator[Subject]:
    """The files of an artifact folder, verified.

    Raises:
        FileNotFoundError, ArtifactError: the folder cannot be used.
    """
    manifest = read_manifest(artifacts)
    for file in manifest.files:
        if file.part in parts:
            name = f"{manifest.variant}-{manifest.image_size}"
            path = verify_file(artifacts, file)
            signature = _signature(file) if file.engine == "tflite" else None
            yield Subject(name, file.part, file.engine, file.precision, path, signature, _free_axes(file))


def _signature(file: ModelFile) -> str:
    """The decoder's signature for a click, the encoder's only one."""
    click = f"decode_{CLICK[0]}x{CLICK[1]}"
    return click if click in file.signatures else next(iter(file.signatures))


def _free_axes(file: ModelFile) -> dict[str, int]:
    inputs = next(iter(file.signatures.values())).inputs
    shape = inputs["point_coords"].shape if "point_coords" in inputs else ()
    return {axis: length for axis, length in zip(shape, CLICK, strict=False) if isinstance(axis, str)}
