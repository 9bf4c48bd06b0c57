"""The manifest of an artifact folder: what every file is. Format: docs/artifacts.md.

Only the standard library is imported here, so that the exporter, the calibration and the device share one definition.
After an edit by hand, `python -m tinysam.runtime.manifest FOLDER --rehash` makes the manifest valid again.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinysam.runtime.atomic import write_atomically
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.labels import LABELS

SCHEMA = 2
"""The one version of the format that this code reads and writes."""
FILE_NAME = "manifest.json"
HASH_FIELD = "content_sha256"
"""SHA-256 of the manifest's own text, in which 64 zeros stand for the hash."""
_NO_HASH = "0" * 64
STRIDE = 16
"""Pixels of the model's input per cell of the embedding grid."""
PARTS = ("encoder", "decoder")
PRECISIONS = ("fp32", "fp16", "int8")
"""In ascending order of preference; `fp16`: weights of 16 bits, and arithmetic where the processor has it."""
ENGINES = tuple(FORMATS)
LAYOUTS = ("NCHW", "NHWC")
INPUTS = ("normalized", "pixels")
"""What an encoder takes: (pixel - mean) / std; or pixels as whole numbers, and a channel that says where they are."""
MASK_CHOICES = ("single", "steady", "best", "stability")
"""Rules of `tinysam.runtime.mask_choice.choose_mask`."""

_MAX_BYTES = 4 << 20
_MAX_IMAGE_SIZE = 4096
_HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class TensorSpec:
    """Shape and type of one tensor."""

    shape: tuple[int | str, ...]
    """Axis lengths; a string names a free dimension."""
    dtype: str = "float32"


@dataclass(frozen=True)
class Signature:
    """One way to call a model file."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


@dataclass(frozen=True)
class ModelFile:
    """One graph on disk."""

    path: str
    """File name inside the artifact folder."""
    part: str
    """`encoder` or `decoder`."""
    precision: str
    """`fp32` or `int8`."""
    engine: str
    """`onnx` or `tflite`."""
    sha256: str
    size_bytes: int
    layout: str
    """`NCHW` or `NHWC`, of every image-like tensor."""
    signatures: dict[str, Signature]
    input: str | None = None
    """What an encoder takes, one of `INPUTS`; None for a decoder."""
    parity: dict[str, Any] | None = None
    """How far the file's outputs are from the reference; None for a file without a check."""
    quantization: dict[str, Any] | None = None
    """Scheme, target, hash of the calibration set, operations kept in float; None for fp32."""


@dataclass(frozen=True)
class EverythingThresholds:
    """Settings of segment-everything that were chosen for one model; the defaults are SAM's and TinySAM's."""

    points_per_side: int = 32
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    coarse_logit_thresh: float = 8.5
    """Hierarchical mode: a good mask covers the points where its logit is above this."""
    coarse_agreement: int = 1
    """Hierarchical mode: so many good masks over a point make it known, so that it is not asked."""
    coarse_share: float = 1.0
    """Hierarchical mode: most of the grid's points that are asked, as a part of all."""


@dataclass(frozen=True)
class Cleaning:
    """Smallest shares of a mask's area below which parts of it are changed; 0 changes nothing."""

    islands: float = 0.0
    """Smaller separate parts are removed."""
    holes: float = 0.0
    """Smaller holes are filled."""


@dataclass(frozen=True)
class Manifest:
    """All that the runtime knows of a model."""

    variant: str
    image_size: int
    """Side of the square input in pixels."""
    grid: int
    """Side of the embedding, `image_size / 16`."""
    mean: tuple[float, float, float]
    """Per channel, RGB, in units of 0 to 255."""
    std: tuple[float, float, float]
    mask_tokens: tuple[int, ...]
    """Which of SAM's four mask tokens the decoder's mask axis holds, in order."""
    files: tuple[ModelFile, ...]
    everything: EverythingThresholds = field(default_factory=EverythingThresholds)
    box_masks: bool = False
    """Whether a box without a mask prompt goes in as a filled mask as well, as the model was trained."""
    mask_choice: str = "best"
    """Which mask a prompt gets, one of `MASK_CHOICES`."""
    cleaning: Cleaning = field(default_factory=Cleaning)
    """What `tinysam-run` removes from masks."""
    source: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """The manifest as json.dump takes it."""
        listed: dict[str, Any] = json.loads(json.dumps({"schema": self.schema} | asdict(self) | {"labels": LABELS}))
        return listed

    def find(self, part: str, engine: str, precision: str) -> ModelFile:
        """The file of that kind; ArtifactError naming what there is if there is none."""
        for file in self.files:
            if (file.part, file.engine, file.precision) == (part, engine, precision):
                return file
        have = ", ".join(sorted({f"{f.engine} {f.precision}" for f in self.files})) or "nothing"
        raise ArtifactError(
            f"{self.variant}-{self.image_size} has no {part} for backend {engine}, precision {precision}; "
            f"it has {have}: choose one of these, or export the model with others"
        )


def read_manifest(folder: Path | str) -> Manifest:
    """Reads and checks `folder/manifest.json`.

    Raises:
        FileNotFoundError: there is no such folder or manifest.
        ArtifactError: the manifest is damaged, of another schema, or contradicts itself.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"no artifacts at {folder}: {FILE_NAME} is missing; make them with `make export-int8`")
    if path.stat().st_size > _MAX_BYTES:
        raise ArtifactError(f"{path} is larger than {_MAX_BYTES} bytes: not a manifest; export the model again")
    try:
        text = path.read_bytes().decode()
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}); export the model again") from error
    try:
        _check_schema(data)
        _check_content(text, data)
        return manifest_from_dict(data)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def write_manifest(manifest: Manifest, folder: Path | str) -> Path:
    """Writes `folder/manifest.json`, whole or not at all; returns its path."""
    return _write(manifest.to_dict(), Path(folder) / FILE_NAME)


def rehash_manifest(folder: Path | str) -> Path:
    """Makes a manifest that was edited by hand valid again; returns its path.

    Raises:
        FileNotFoundError: there is no manifest.
        ArtifactError: what was written by hand makes no sense.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"no {FILE_NAME} in {folder}")
    try:
        data = json.loads(path.read_bytes())
        manifest_from_dict(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not valid JSON ({error})") from error
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    return _write(data, path)


def sealed(data: dict[str, Any]) -> str:
    """The text of a manifest with the hash of its content."""
    text = json.dumps({**data, HASH_FIELD: _NO_HASH}, indent=2) + "\n"
    return text.replace(_NO_HASH, _sha256(text))


def _write(data: dict[str, Any], path: Path) -> Path:
    write_atomically(path, sealed(data))
    return path


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check_content(text: str, data: Any) -> None:
    """ArtifactError if a byte of the manifest is not what was written."""
    stated = _get(data, HASH_FIELD, str)
    if len(stated) != len(_NO_HASH) or _sha256(text.replace(stated, _NO_HASH)) != stated:
        raise ArtifactError(
            "was changed after it was written; export the model again, or if the change is meant: "
            "python -m tinysam.runtime.manifest FOLDER --rehash"
        )


def _check_schema(data: Any) -> None:
    schema = _get(data, "schema", int)
    if schema != SCHEMA:
        raise ArtifactError(f"schema {schema}, expected {SCHEMA}: export the model again with this version")


def manifest_from_dict(data: Any) -> Manifest:
    """Checks parsed JSON; unknown keys are ignored, ArtifactError names the field that is wrong."""
    _check_schema(data)
    manifest = Manifest(
        variant=_get(data, "variant", str),
        image_size=_get(data, "image_size", int),
        grid=_get(data, "grid", int),
        mean=_channels(data, "mean"),
        std=_channels(data, "std"),
        mask_tokens=_mask_tokens(data),
        mask_choice=_one_of(data, "mask_choice", MASK_CHOICES),
        cleaning=_cleaning(data),
        everything=_thresholds(data.get("everything")),
        box_masks=_get(data, "box_masks", bool, False),
        source=_get(data, "source", dict, {}),
        tools=_get(data, "tools", dict, {}),
        files=tuple(_model_file(entry) for entry in _get(data, "files", list)),
    )
    _check_sizes(manifest)
    if manifest.mask_choice in ("single", "steady") and 0 not in manifest.mask_tokens:
        raise ArtifactError(
            f"field 'mask_choice' is {manifest.mask_choice!r}, but 'mask_tokens' {list(manifest.mask_tokens)} lack 0"
        )
    return manifest


def sha256_file(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def verify_file(folder: Path | str, file: ModelFile) -> Path:
    """Path of a model file whose size and SHA-256 are what the manifest says.

    Raises:
        FileNotFoundError: the file is missing.
        ArtifactError: size or hash differ.
    """
    path = Path(folder) / file.path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is named in the manifest but missing; export the model again")
    size = path.stat().st_size
    if size != file.size_bytes:
        raise ArtifactError(f"{path} has {size} bytes, the manifest says {file.size_bytes}; export the model again")
    digest = sha256_file(path)
    if digest != file.sha256:
        raise ArtifactError(
            f"{path} is damaged: its SHA-256 is {digest[:12]}..., the manifest says {file.sha256[:12]}...; "
            "export the model again"
        )
    return path


def _get(data: Any, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    if not isinstance(data, dict):
        raise ArtifactError(f"expected an object with a field {name!r}, found {_show(data)}")
    value = data.get(name, default)
    wanted = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        names = " or ".join(k.__name__ for k in wanted)
        raise ArtifactError(f"field {name!r} is {_show(value)}, expected {names}")
    return value


def _show(value: Any) -> str:
    text = repr(value)
    return "missing" if value is None else text if len(text) <= 60 else text[:57] + "..."


def _number(data: Any, name: str, low: float, high: float, default: float | None = None) -> float:
    value = _get(data, name, (int, float), default)
    if not low <= value <= high:
        raise ArtifactError(f"field {name!r} is {_show(value)}, expected {low:g} to {high:g}")
    return float(value)


def _one_of(data: Any, name: str, choices: tuple[str, ...]) -> str:
    value: str = _get(data, name, str)
    if value not in choices:
        raise ArtifactError(f"field {name!r} is {_show(value)}, expected one of {', '.join(choices)}")
    return value


def _channels(data: Any, name: str) -> tuple[float, float, float]:
    values = _get(data, name, list)
    low = 1e-3 if name == "std" else 0.0
    if len(values) != 3:
        raise ArtifactError(f"field {name!r} has {len(values)} numbers, expected 3 (red, green, blue)")
    red, green, blue = (_number({name: value}, name, low, 1e3) for value in values)
    return red, green, blue


def _mask_tokens(data: Any) -> tuple[int, ...]:
    tokens = _get(data, "mask_tokens", list)
    valid = all(type(token) is int and 0 <= token <= 3 for token in tokens)
    if not valid or not tokens or len(set(tokens)) != len(tokens):
        raise ArtifactError(f"field 'mask_tokens' is {_show(tokens)}, expected different numbers from 0 to 3")
    return tuple(tokens)


def _thresholds(data: Any) -> EverythingThresholds:
    if data is None:
        return EverythingThresholds()
    default = EverythingThresholds()
    counts = {}
    for name, most in (("points_per_side", 256), ("coarse_agreement", 100)):
        counts[name] = _get(data, name, int, getattr(default, name))
        if not 1 <= counts[name] <= most:
            raise ArtifactError(f"field {name!r} is {counts[name]}, expected 1 to {most}")
    ranges = {
        "pred_iou_thresh": (0.0, 1.0),
        "stability_score_thresh": (0.0, 1.0),
        "stability_score_offset": (0.0, 100.0),
        "box_nms_thresh": (0.0, 1.0),
        "coarse_logit_thresh": (-1000.0, 1000.0),
        "coarse_share": (0.0, 1.0),
    }
    values = {name: _number(data, name, *limits, getattr(default, name)) for name, limits in ranges.items()}
    points, agreement = counts["points_per_side"], counts["coarse_agreement"]
    return EverythingThresholds(points_per_side=points, coarse_agreement=agreement, **values)


def _cleaning(data: Any) -> Cleaning:
    shares = _get(data, "cleaning", dict)
    return Cleaning(*(_number(shares, name, 0.0, 1.0) for name in ("islands", "holes")))


def _model_file(data: Any) -> ModelFile:
    path = _get(data, "path", str)
    if not path or path != Path(path).name or path in (".", "..") or "\\" in path or "\0" in path:
        raise ArtifactError(f"field 'path' is {_show(path)}, expected the name of a file inside the folder")
    digest = _get(data, "sha256", str)
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ArtifactError(f"field 'sha256' of {path} is {_show(digest)}, expected 64 lower-case hexadecimal digits")
    signatures = _get(data, "signatures", dict)
    if not signatures:
        raise ArtifactError(f"field 'signatures' of {path} is empty, expected at least one")
    part = _one_of(data, "part", PARTS)
    return ModelFile(
        path=path,
        part=part,
        input=_one_of(data, "input", INPUTS) if part == "encoder" else None,
        precision=_one_of(data, "precision", PRECISIONS),
        engine=_one_of(data, "engine", tuple(FORMATS)),
        sha256=digest,
        size_bytes=_get(data, "size_bytes", int),
        layout=_one_of(data, "layout", LAYOUTS),
        signatures={name: _signature(entry) for name, entry in signatures.items()},
        parity=_get(data, "parity", (dict, type(None))),
        quantization=_get(data, "quantization", (dict, type(None))),
    )


def _signature(data: Any) -> Signature:
    return Signature(inputs=_tensors(data, "inputs"), outputs=_tensors(data, "outputs"))


def _tensors(data: Any, name: str) -> dict[str, TensorSpec]:
    return {tensor: _tensor(spec) for tensor, spec in _get(data, name, dict).items()}


def _tensor(data: Any) -> TensorSpec:
    shape = _get(data, "shape", list)
    if not all(isinstance(axis, str) or (type(axis) is int and 1 <= axis < 1 << 31) for axis in shape):
        raise ArtifactError(f"field 'shape' is {_show(shape)}, expected positive numbers or names of free dimensions")
    return TensorSpec(shape=tuple(shape), dtype=_get(data, "dtype", str))


def _check_sizes(manifest: Manifest) -> None:
    size = manifest.image_size
    if not STRIDE <= size <= _MAX_IMAGE_SIZE or size % STRIDE:
        raise ArtifactError(f"field 'image_size' is {size}, expected a multiple of {STRIDE} up to {_MAX_IMAGE_SIZE}")
    if manifest.grid != size // STRIDE:
        raise ArtifactError(f"field 'grid' is {manifest.grid}, expected image_size / {STRIDE} = {size // STRIDE}")
    names = [file.path for file in manifest.files]
    if len(set(names)) != len(names):
        raise ArtifactError("field 'files' names the same file twice")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m tinysam.runtime.manifest`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tinysam.runtime.manifest", description="Check the manifest of a model.")
    parser.add_argument("folder", type=Path, help="artifact folder")
    parser.add_argument("--rehash", action="store_true", help="accept what was edited by hand")
    options = parser.parse_args(arguments)
    try:
        if options.rehash:
            rehash_manifest(options.folder)
        manifest = read_manifest(options.folder)
    except (ArtifactError, OSError) as error:
        print(f"tinysam.runtime.manifest: error: {error}", file=sys.stderr)
        return 1
    print(f"{options.folder}: {manifest.variant}-{manifest.image_size}, {len(manifest.files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
