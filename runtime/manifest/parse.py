"""Parsed JSON to a `Manifest`: every field is checked, and the message names the one that is wrong."""

from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest import records
from tinysam.runtime.manifest.records import (
    STRIDE,
    Cleaning,
    EverythingThresholds,
    Manifest,
    ModelFile,
    Signature,
    TensorSpec,
    ZoomIn,
)

_MAX_IMAGE_SIZE = 4096


def manifest_from_dict(data: Any) -> Manifest:
    """Checks parsed JSON; unknown keys are ignored, ArtifactError names the field that is wrong."""
    check_schema(data)
    manifest = Manifest(
        variant=get_field(data, "variant", str),
        image_size=get_field(data, "image_size", int),
        grid=get_field(data, "grid", int),
        mean=_channels(data, "mean"),
        std=_channels(data, "std"),
        mask_tokens=_mask_tokens(data),
        mask_choice=_one_of(data, "mask_choice", records.MASK_CHOICES),
        cleaning=_cleaning(data),
        zoom_in=_zoom_in(data),
        everything=_thresholds(data.get("everything")),
        box_masks=get_field(data, "box_masks", bool, False),
        source=get_field(data, "source", dict, {}),
        tools=get_field(data, "tools", dict, {}),
        files=tuple(_model_file(entry) for entry in get_field(data, "files", list)),
    )
    _check_sizes(manifest)
    if manifest.mask_choice in ("single", "steady") and 0 not in manifest.mask_tokens:
        raise ArtifactError(
            f"field 'mask_choice' is {manifest.mask_choice!r}, but 'mask_tokens' {list(manifest.mask_tokens)} lack 0"
        )
    return manifest


def check_schema(data: Any) -> None:
    """ArtifactError if the manifest is of another version of the format."""
    schema = get_field(data, "schema", int)
    if schema != records.SCHEMA:
        raise ArtifactError(f"schema {schema}, expected {records.SCHEMA}: export the model again with this version")


def _check_sizes(manifest: Manifest) -> None:
    size = manifest.image_size
    if not STRIDE <= size <= _MAX_IMAGE_SIZE or size % STRIDE:
        raise ArtifactError(f"field 'image_size' is {size}, expected a multiple of {STRIDE} up to {_MAX_IMAGE_SIZE}")
    if manifest.grid != size // STRIDE:
        raise ArtifactError(f"field 'grid' is {manifest.grid}, expected image_size / {STRIDE} = {size // STRIDE}")
    names = [file.path for file in manifest.files]
    if len(set(names)) != len(names):
        raise ArtifactError("field 'files' names the same file twice")


def get_field(data: Any, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    """The value of a field; ArtifactError if it is missing or of another type."""
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


def _number(data: Any, name: str, low: float, high: float) -> float:
    value = get_field(data, name, (int, float))
    if not low <= value <= high:
        raise ArtifactError(f"field {name!r} is {_show(value)}, expected {low:g} to {high:g}")
    return float(value)


def _one_of(data: Any, name: str, choices: tuple[str, ...]) -> str:
    value: str = get_field(data, name, str)
    if value not in choices:
        raise ArtifactError(f"field {name!r} is {_show(value)}, expected one of {', '.join(choices)}")
    return value


def _channels(data: Any, name: str) -> tuple[float, float, float]:
    values = get_field(data, name, list)
    low = 1e-3 if name == "std" else 0.0
    if len(values) != 3:
        raise ArtifactError(f"field {name!r} has {len(values)} numbers, expected 3 (red, green, blue)")
    red, green, blue = (_number({name: value}, name, low, 1e3) for value in values)
    return red, green, blue


def _mask_tokens(data: Any) -> tuple[int, ...]:
    tokens = get_field(data, "mask_tokens", list)
    valid = all(type(token) is int and 0 <= token <= 3 for token in tokens)
    if not valid or not tokens or len(set(tokens)) != len(tokens):
        raise ArtifactError(f"field 'mask_tokens' is {_show(tokens)}, expected different numbers from 0 to 3")
    return tuple(tokens)


def _thresholds(data: Any) -> EverythingThresholds:
    if data is None:
        return EverythingThresholds()
    return EverythingThresholds(**{one.name: _threshold(data, one) for one in fields(EverythingThresholds)})


def _threshold(data: Any, one: Field[Any]) -> Any:
    default: Any = one.default
    kind = type(default)
    value = get_field(data, one.name, int if kind is int else (int, float), default)
    low, high = one.metadata["limits"]
    if not low <= value <= high:
        raise ArtifactError(f"field {one.name!r} is {_show(value)}, expected {low:g} to {high:g}")
    return kind(value)


def _cleaning(data: Any) -> Cleaning:
    shares = get_field(data, "cleaning", dict)
    return Cleaning(*(_number(shares, name, 0.0, 1.0) for name in ("islands", "holes")))


def _zoom_in(data: Any) -> ZoomIn:
    factors = get_field(data, "zoom_in", dict, {})
    return ZoomIn(**{name: _zoom_factor(factors, name) for name in ("box", "mask") if name in factors})


def _zoom_factor(data: Any, name: str) -> float:
    """0, or from 1: a smaller window would cut the object."""
    return 0.0 if get_field(data, name, (int, float)) == 0 else _number(data, name, 1.0, 100.0)


def _model_file(data: Any) -> ModelFile:
    path = get_field(data, "path", str)
    if not path or path != Path(path).name or path in (".", "..") or "\\" in path or "\0" in path:
        raise ArtifactError(f"field 'path' is {_show(path)}, expected the name of a file inside the folder")
    digest = get_field(data, "sha256", str)
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ArtifactError(f"field 'sha256' of {path} is {_show(digest)}, expected 64 lower-case hexadecimal digits")
    signatures = get_field(data, "signatures", dict)
    if not signatures:
        raise ArtifactError(f"field 'signatures' of {path} is empty, expected at least one")
    part = _one_of(data, "part", records.PARTS)
    return ModelFile(
        path=path,
        part=part,
        input=_one_of(data, "input", records.INPUTS) if part == "encoder" else None,
        precision=_one_of(data, "precision", records.PRECISIONS),
        engine=_one_of(data, "engine", tuple(FORMATS)),
        sha256=digest,
        size_bytes=get_field(data, "size_bytes", int),
        layout=_one_of(data, "layout", records.LAYOUTS),
        signatures={name: _signature(entry) for name, entry in signatures.items()},
        parity=get_field(data, "parity", (dict, type(None))),
        quantization=get_field(data, "quantization", (dict, type(None))),
    )


def _signature(data: Any) -> Signature:
    return Signature(inputs=_tensors(data, "inputs"), outputs=_tensors(data, "outputs"))


def _tensors(data: Any, name: str) -> dict[str, TensorSpec]:
    return {tensor: _tensor(spec) for tensor, spec in get_field(data, name, dict).items()}


def _tensor(data: Any) -> TensorSpec:
    shape = get_field(data, "shape", list)
    if not all(isinstance(axis, str) or (type(axis) is int and 1 <= axis < 1 << 31) for axis in shape):
        raise ArtifactError(f"field 'shape' is {_show(shape)}, expected positive numbers or names of free dimensions")
    return TensorSpec(shape=tuple(shape), dtype=get_field(data, "dtype", str))
