"""The tensors that a model file has to have, see docs/artifacts.md; a manifest that says otherwise is refused."""

import re

from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest import Manifest, ModelFile, Signature

_FIXED = re.compile(r"decode_([1-9]\d{0,3})x([1-9]\d{0,3})")
ATTEND, UPSCALE = STAGES = ("attend_1x2", "upscale_1")
"""Signatures of a decoder in two calls: predicted IoU of one prompt of two points; the upscaling of its masks."""
_FREE = ""
"""Name of the signature of an ONNX file, whose numbers of prompts and points are free."""

Shape = tuple[int | str, ...]


def check_contract(manifest: Manifest, file: ModelFile) -> None:
    """ArtifactError if the manifest gives a file other tensors than the runtime will use."""
    if file.part == "encoder" and len(file.signatures) != 1:
        raise ArtifactError(f"{file.path}: {len(file.signatures)} signatures, expected one; export the model again")
    if file.part == "decoder" and _FREE not in file.signatures and not set(STAGES) <= set(file.signatures):
        raise ArtifactError(f"{file.path}: lacks {' or '.join(STAGES)}; export the model again")
    for name, signature in file.signatures.items():
        inputs, outputs = _encoder(manifest, file) if file.part == "encoder" else _decoder(manifest, file, name)
        for side, expected in (("inputs", inputs), ("outputs", outputs)):
            found = {tensor: spec.shape for tensor, spec in getattr(signature, side).items()}
            if _sizes(found) != _sizes(expected):
                raise ArtifactError(
                    f"{file.path}: {side} of signature {name!r} are {found}, expected {expected}: export again"
                )
        _check_dtypes(file, signature)


def fixed_batches(file: ModelFile) -> list[tuple[int, int, str]]:
    """(prompts, points, signature name) of a decoder with fixed shapes, smallest first; empty if its axes are free."""
    matches = ((_FIXED.fullmatch(name), name) for name in file.signatures)
    return sorted((int(match[1]), int(match[2]), name) for match, name in matches if match)


def _encoder(manifest: Manifest, file: ModelFile) -> tuple[dict[str, Shape], dict[str, Shape]]:
    size, grid = manifest.image_size, manifest.grid
    channels = 3 if file.input == "normalized" else 4
    return {"image": _image(file, channels, size)}, {"image_embeddings": _image(file, 256, grid)}


def _decoder(manifest: Manifest, file: ModelFile, name: str) -> tuple[dict[str, Shape], dict[str, Shape]]:
    masks = len(manifest.mask_tokens)
    if name in STAGES:
        return _stage(manifest, file, name)
    prompts: int | str = "P"
    points: int | str = "N"
    if name != _FREE:
        match = _FIXED.fullmatch(name)
        if not match:
            raise ArtifactError(f"{file.path}: signature {name!r}, expected decode_<P>x<N>; export the model again")
        prompts, points = int(match[1]), int(match[2])
    side = 4 * manifest.grid
    inputs: dict[str, Shape] = {
        "image_embeddings": _image(file, 256, manifest.grid),
        "point_coords": (prompts, points, 2),
        "point_labels": (prompts, points),
        "mask_input": _image(file, 1, side),
        "has_mask_input": (1,),
    }
    kept = prompts
    if name == _FREE:
        inputs["iou_threshold"], kept = (1,), "K"
    return inputs, {"low_res_masks": (kept, masks, side, side), "iou_predictions": (prompts, masks)}


def _stage(manifest: Manifest, file: ModelFile, name: str) -> tuple[dict[str, Shape], dict[str, Shape]]:
    masks, side = len(manifest.mask_tokens), 4 * manifest.grid
    between: dict[str, Shape] = {"cells": (1, manifest.grid**2, 256), "mask_weights": (1, masks, 32)}
    if name == UPSCALE:
        return between, {"low_res_masks": (1, masks, side, side)}
    inputs: dict[str, Shape] = {
        "image_embeddings": _image(file, 256, manifest.grid),
        "point_coords": (1, 2, 2),
        "point_labels": (1, 2),
    }
    return inputs, {**between, "iou_predictions": (1, masks)}


def _image(file: ModelFile, channels: int, side: int) -> Shape:
    return (1, channels, side, side) if file.layout == "NCHW" else (1, side, side, channels)


def _sizes(tensors: dict[str, Shape]) -> dict[str, tuple[int | None, ...]]:
    """The shapes with free dimensions as None, whatever they are called."""
    return {name: tuple(None if isinstance(axis, str) else axis for axis in shape) for name, shape in tensors.items()}


def _check_dtypes(file: ModelFile, signature: Signature) -> None:
    for name, spec in (*signature.inputs.items(), *signature.outputs.items()):
        allowed = ("float32", "uint8") if name == "image" and file.input == "pixels" else ("float32",)
        if spec.dtype not in allowed:
            raise ArtifactError(
                f"{file.path}: tensor {name} is {spec.dtype}, expected {' or '.join(allowed)}; export the model again"
            )
