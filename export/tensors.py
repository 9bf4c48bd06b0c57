"""Inputs of the exported graphs as arrays and the manifest's entries; the tensors are in `tinysam.runtime.contract`."""

from pathlib import Path

import numpy as np

from tinysam.calibration.arrays import Floats
from tinysam.calibration.feeds import Feed
from tinysam.runtime.contract import ATTEND, STAGE_POINTS, UPSCALE, Sizes, signatures
from tinysam.runtime.engines import Engine
from tinysam.runtime.engines.formats import FORMATS, TFLITE
from tinysam.runtime.manifest import ModelFile, sha256_file
from tinysam.runtime.prompts import pad_prompts

ENCODER_OUTPUTS = ("image_embeddings",)
DECODER_OUTPUTS = ("low_res_masks", "iou_predictions")
ENCODE = TFLITE.encode
"""Name of the encoder's signature in TFLite files."""
TFLITE_PROMPTS = TFLITE.batches
"""Prompts and points of the TFLite decoder's signatures."""
STAGED_POINTS = STAGE_POINTS
"""Points of a prompt of the TFLite decoder in two calls, which takes one prompt at a time."""
ATTEND_INPUTS = ("image_embeddings", "point_coords", "point_labels")
ATTEND_OUTPUTS, UPSCALE_OUTPUTS = ("cells", "mask_weights", "iou_predictions"), ("low_res_masks",)
ALL = -np.inf
"""The ONNX decoder's `iou_threshold` that drops no mask."""


def channels_last(tensor: Floats) -> Floats:
    """(B, C, H, W) -> (B, H, W, C), contiguous."""
    return np.ascontiguousarray(tensor.transpose(0, 2, 3, 1))


def encoder_inputs(engine: str, image: Floats) -> dict[str, Floats]:
    """Encoder inputs in the engine's layout, from an NCHW image."""
    return {"image": image if engine == "onnx" else channels_last(image)}


def decoder_inputs(engine: str, embedding: Floats, prompts: Feed) -> dict[str, Floats]:
    """Decoder inputs in the engine's layout for all masks, from an NCHW embedding and mask."""
    if engine == "onnx":
        return {"image_embeddings": embedding, **prompts, "iou_threshold": np.full(1, ALL, np.float32)}
    mask = channels_last(prompts["mask_input"])
    return {"image_embeddings": channels_last(embedding), **prompts, "mask_input": mask}


def fill_slots(prompts: Feed, count: int, slots: int) -> Feed:
    """Pads prompts to a fixed signature: absent points (label -2) and copies of the last prompt."""
    coords, labels = pad_prompts(prompts["point_coords"], prompts["point_labels"], count, slots)
    return {**prompts, "point_coords": coords, "point_labels": labels}


def run_decoder(decoder: Engine, signature: str, inputs: Feed) -> Feed:
    """Runs a decoder; both calls, if `signature` is the first of two."""
    if signature != ATTEND:
        return decoder.run(signature, inputs)
    found = decoder.run(ATTEND, {name: inputs[name] for name in ATTEND_INPUTS})
    masks = decoder.run(UPSCALE, {name: found[name] for name in ("cells", "mask_weights")})
    return {**masks, "iou_predictions": found["iou_predictions"]}


def model_file(folder: Path, part: str, precision: str, engine: str, image_size: int, masks: int) -> ModelFile:
    """The manifest's entry for a file that has been written to `folder`."""
    path = folder / f"{part}.{precision}.{engine}"
    return ModelFile(
        path=path.name,
        part=part,
        precision=precision,
        engine=engine,
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        layout=FORMATS[engine].layout,
        signatures=signatures(part, FORMATS[engine], Sizes(image_size, masks)),
        input="normalized" if part == "encoder" else None,
    )
