"""Inputs of the exported graphs as arrays and the manifest's entries; the tensors are in `tinysam.runtime.contract`."""

from pathlib import Path

import numpy as np

from tinysam.calibration.arrays import Floats
from tinysam.calibration.feeds import Feed
from tinysam.runtime.contract import Sizes, signatures
from tinysam.runtime.engines.formats import FORMATS, FileFormat
from tinysam.runtime.manifest import ModelFile, sha256_file
from tinysam.runtime.prompts import pad_prompts

ENCODER_OUTPUTS = ("image_embeddings",)
DECODER_OUTPUTS = ("low_res_masks", "iou_predictions")
ALL = -np.inf
"""The `iou_threshold` of a decoder with free axes that drops no mask."""


def channels_last(tensor: Floats) -> Floats:
    """(B, C, H, W) -> (B, H, W, C), contiguous."""
    return np.ascontiguousarray(tensor.transpose(0, 2, 3, 1))


def in_layout(form: FileFormat, tensor: Floats) -> Floats:
    """An NCHW tensor in the layout of a format's files."""
    return tensor if form.layout == "NCHW" else channels_last(tensor)


def encoder_inputs(form: FileFormat, image: Floats) -> dict[str, Floats]:
    """Inputs of a format's float encoder, from an NCHW image."""
    return {"image": in_layout(form, image)}


def decoder_inputs(form: FileFormat, embedding: Floats, prompts: Feed) -> dict[str, Floats]:
    """Inputs of a format's decoder for all masks, from an NCHW embedding and mask."""
    mask = in_layout(form, prompts["mask_input"])
    inputs = {"image_embeddings": in_layout(form, embedding), **prompts, "mask_input": mask}
    return inputs if form.batches else {**inputs, "iou_threshold": np.full(1, ALL, np.float32)}


def fill_slots(prompts: Feed, count: int, slots: int) -> Feed:
    """Pads prompts to a fixed signature: absent points (label -2) and copies of the last prompt."""
    coords, labels = pad_prompts(prompts["point_coords"], prompts["point_labels"], count, slots)
    return {**prompts, "point_coords": coords, "point_labels": labels}


def cut(prompts: Feed, count: int) -> Feed:
    """The first `count` prompts."""
    return {name: a[:count] if name.startswith("point") else a for name, a in prompts.items()}


def model_file(folder: Path, part: str, precision: str, engine: str, image_size: int, masks: int) -> ModelFile:
    """The manifest's entry for a file that has been written to `folder`."""
    form = FORMATS[engine]
    path = folder / form.file_name(part, precision)
    return ModelFile(
        path=path.name,
        part=part,
        precision=precision,
        engine=engine,
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        layout=form.layout,
        signatures=signatures(part, form, Sizes(image_size, masks)),
        input="normalized" if part == "encoder" else None,
    )
