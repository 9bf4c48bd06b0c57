"""The tensors of model files: the exporter writes them, the runtime checks them, docs/artifacts.md lists them.

1. `encoder_signature`, `decoder_signature` build one signature each, `stage_signatures` those of a decoder in steps;
2. `signatures` lists all that the exporter writes into a file of a format;
3. `check_contract` refuses a manifest that gives a file other tensors.

Only the standard library is imported here.
"""

import re
from dataclasses import dataclass

from tinysam.runtime.engines.formats import FileFormat
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest import Manifest, ModelFile, Signature, TensorSpec

EMBED_DIM = 256
"""Channels of the embedding."""
WEIGHT_DIM = EMBED_DIM // 8
"""Channels of the upscaled cells, with which the decoder's tokens are multiplied to draw masks."""
HEADS = 8
"""Heads of the decoder's attention; between image and tokens they share half of `EMBED_DIM`."""
PREPARE, ATTEND, UPSCALE = STAGES = ("prepare", "attend_1x2", "upscale_1")
"""Signatures of a decoder in steps: once for a photograph what its prompts without a mask share; predicted IoU of one
prompt of two points; the upscaling of its masks."""
STAGE_POINTS = 2
"""Points of that prompt."""
FREE = ""
"""Name of a decoder's signature whose numbers of prompts and points are free."""

_FIXED = re.compile(r"decode_([1-9]\d{0,3})x([1-9]\d{0,3})")

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Sizes:
    """What decides the shapes of a model's tensors."""

    image_size: int
    masks: int
    """Length of the decoder's mask axis."""

    @property
    def grid(self) -> int:
        """Side of the embedding."""
        return self.image_size // 16

    @property
    def low_res(self) -> int:
        """Side of the decoder's masks."""
        return 4 * self.grid


def decode_name(prompts: int, points: int) -> str:
    """Name of a decoder's signature with fixed axes."""
    return f"decode_{prompts}x{points}"


def encoder_signature(layout: str, sizes: Sizes, kind: str = "normalized", dtype: str = "float32") -> Signature:
    """The encoder's tensors; `kind` is the file's `input`."""
    channels = 3 if kind == "normalized" else 4
    return Signature(
        {"image": TensorSpec(_image(layout, channels, sizes.image_size), dtype)},
        {"image_embeddings": TensorSpec(_image(layout, EMBED_DIM, sizes.grid))},
    )


def decoder_signature(layout: str, sizes: Sizes, prompts: int | str, points: int | str) -> Signature:
    """The decoder's tensors for P prompts of N points.

    Where P is free the decoder takes a threshold of predicted IoU as well, and draws the masks of the K prompts that
    exceed it.
    """
    free = isinstance(prompts, str)
    inputs = {
        "image_embeddings": TensorSpec(_image(layout, EMBED_DIM, sizes.grid)),
        "point_coords": TensorSpec((prompts, points, 2)),
        "point_labels": TensorSpec((prompts, points)),
        "mask_input": TensorSpec(_image(layout, 1, sizes.low_res)),
        "has_mask_input": TensorSpec((1,)),
    }
    if free:
        inputs["iou_threshold"] = TensorSpec((1,))
    side = sizes.low_res
    return Signature(
        inputs,
        {
            "low_res_masks": TensorSpec(("kept" if free else prompts, sizes.masks, side, side)),
            "iou_predictions": TensorSpec((prompts, sizes.masks)),
        },
    )


def stage_signatures(layout: str, sizes: Sizes) -> dict[str, Signature]:
    """The decoder in steps: what depends on the photograph alone, predicted IoU, and masks where they are wanted."""
    whole = decoder_signature(layout, sizes, 1, STAGE_POINTS)
    photograph, points = (
        {name: whole.inputs[name] for name in names}
        for names in (("image_embeddings",), ("point_coords", "point_labels"))
    )
    cells, width = sizes.grid**2, EMBED_DIM // 2 // HEADS
    across, along = TensorSpec((1, HEADS, width, cells)), TensorSpec((1, HEADS, cells, width))
    image = TensorSpec((1, cells, EMBED_DIM))
    prepared = {"image_cells": image, "keys": across, "values": along, "queries": across}
    between = {
        "cells": image,
        "mask_weights": TensorSpec((1, sizes.masks, WEIGHT_DIM)),
    }
    iou = {"iou_predictions": whole.outputs["iou_predictions"]}
    return {
        PREPARE: Signature(photograph, prepared),
        ATTEND: Signature({**prepared, **points}, {**between, **iou}),
        UPSCALE: Signature(between, {"low_res_masks": whole.outputs["low_res_masks"]}),
    }


def signatures(
    part: str, form: FileFormat, sizes: Sizes, kind: str = "normalized", dtype: str = "float32"
) -> dict[str, Signature]:
    """All signatures of an encoder or decoder file of a format, by name."""
    if part == "encoder":
        return {form.encode: encoder_signature(form.layout, sizes, kind, dtype)}
    if not form.batches:
        return {FREE: decoder_signature(form.layout, sizes, "prompts", "points")}
    whole = {decode_name(p, n): decoder_signature(form.layout, sizes, p, n) for p, n in form.batches}
    return {**whole, **stage_signatures(form.layout, sizes)}


def fixed_batches(file: ModelFile) -> list[tuple[int, int, str]]:
    """(prompts, points, signature name) of a decoder with fixed shapes, smallest first; empty if its axes are free."""
    matches = ((_FIXED.fullmatch(name), name) for name in file.signatures)
    return sorted((int(match[1]), int(match[2]), name) for match, name in matches if match)


def check_contract(manifest: Manifest, file: ModelFile) -> None:
    """ArtifactError if the manifest gives a file other tensors than the runtime will use."""
    if file.part == "encoder" and len(file.signatures) != 1:
        raise ArtifactError(f"{file.path}: {len(file.signatures)} signatures, expected one; export the model again")
    lacking = [name for name in STAGES if name not in file.signatures]
    if file.part == "decoder" and FREE not in file.signatures and lacking:
        raise ArtifactError(f"{file.path}: lacks {' and '.join(lacking)}; export the model again")
    for name, signature in file.signatures.items():
        expected = _expected(manifest, file, name)
        for side in ("inputs", "outputs"):
            wanted, found = getattr(expected, side), getattr(signature, side)
            if _sizes(wanted) != _sizes(found):
                have, want = ({tensor: spec.shape for tensor, spec in one.items()} for one in (found, wanted))
                raise ArtifactError(
                    f"{file.path}: {side} of signature {name!r} are {have}, expected {want}: export again"
                )
        _check_dtypes(file, signature)


def _expected(manifest: Manifest, file: ModelFile, name: str) -> Signature:
    sizes = Sizes(manifest.image_size, len(manifest.mask_tokens))
    if file.part == "encoder":
        return encoder_signature(file.layout, sizes, file.input or "normalized")
    if name in STAGES:
        return stage_signatures(file.layout, sizes)[name]
    if name == FREE:
        return decoder_signature(file.layout, sizes, "prompts", "points")
    match = _FIXED.fullmatch(name)
    if not match:
        raise ArtifactError(f"{file.path}: signature {name!r}, expected decode_<P>x<N>; export the model again")
    return decoder_signature(file.layout, sizes, int(match[1]), int(match[2]))


def _image(layout: str, channels: int, side: int) -> Shape:
    return (1, channels, side, side) if layout == "NCHW" else (1, side, side, channels)


def _sizes(tensors: dict[str, TensorSpec]) -> dict[str, tuple[int | None, ...]]:
    """The shapes with free dimensions as None, whatever they are called."""
    return {
        name: tuple(None if isinstance(axis, str) else axis for axis in spec.shape) for name, spec in tensors.items()
    }


def _check_dtypes(file: ModelFile, signature: Signature) -> None:
    for name, spec in (*signature.inputs.items(), *signature.outputs.items()):
        allowed = ("float32", "uint8") if name == "image" and file.input == "pixels" else ("float32",)
        if spec.dtype not in allowed:
            raise ArtifactError(
                f"{file.path}: tensor {name} is {spec.dtype}, expected {' or '.join(allowed)}; export the model again"
            )
