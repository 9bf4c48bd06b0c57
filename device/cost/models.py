"""The model files whose cost is reported: those of artifact folders, run for one click.

The decoder is measured for the masks of a click, and as segment-everything runs it: a point whose masks are not drawn
because their predicted IoU is below the threshold, and what a TFLite decoder computes once for a photograph before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tinysam.runtime.contract import ATTEND, PREPARE, decode_name
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.manifest import ModelFile, read_manifest, verify_file

CLICK = (1, 2)
"""One prompt of two points: the one that was clicked, and SAM's padding point."""


PARTS = ("encoder", "decoder", "prepare", "attend")
"""`attend` is the decoder for a point whose masks are not drawn, `prepare` what all such points share."""


@dataclass(frozen=True)
class Subject:
    """One file to measure, and how it is asked."""

    model: str
    """As `nano-448`."""
    part: str
    """One of `PARTS`."""
    file: ModelFile
    path: Path
    signature: str | None = None
    """Of a TFLite file."""
    lengths: Mapping[str, int] = field(default_factory=dict)
    """Of an ONNX file's free axes."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Of inputs that hold one value throughout."""


def subjects(artifacts: Path, parts: tuple[str, ...]) -> Iterator[Subject]:
    """The files of an artifact folder, verified.

    Raises:
        FileNotFoundError, ArtifactError: the folder cannot be used.
    """
    manifest = read_manifest(artifacts)
    model = f"{manifest.variant}-{manifest.image_size}"
    for file in manifest.files:
        in_steps = bool(FORMATS[file.engine].batches)
        own = ("encoder",) if file.part == "encoder" else ("decoder", *["prepare"] * in_steps, "attend")
        for part in (part for part in parts if part in own):
            path = verify_file(artifacts, file)
            if in_steps:
                yield Subject(model, part, file, path, signature=_signature(file, part))
            else:
                yield Subject(model, part, file, path, lengths=_free_axes(file), values=_threshold(part))


def _signature(file: ModelFile, part: str) -> str:
    if part == "encoder":
        return next(iter(file.signatures))
    return {"prepare": PREPARE, "attend": ATTEND}.get(part, decode_name(*CLICK))


def _threshold(part: str) -> dict[str, float]:
    """Predicted IoU that every mask is above, or none."""
    return {} if part == "encoder" else {"iou_threshold": math.inf if part == "attend" else -math.inf}


def _free_axes(file: ModelFile) -> dict[str, int]:
    inputs = next(iter(file.signatures.values())).inputs
    shape = inputs["point_coords"].shape if "point_coords" in inputs else ()
    return {axis: length for axis, length in zip(shape, CLICK, strict=False) if isinstance(axis, str)}
