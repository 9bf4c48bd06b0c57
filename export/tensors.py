"""Names, shapes and layouts of the exported graphs' tensors: the one place where `docs/artifacts.md` is code."""

from pathlib import Path

import numpy as np

from tinysam.calibration.arrays import Floats
from tinysam.calibration.feeds import Feed
from tinysam.runtime.contract import ATTEND, UPSCALE
from tinysam.runtime.engines import Engine
from tinysam.runtime.manifest import ModelFile, Signature, TensorSpec, sha256_file

EMBED_DIM = 256
ENCODER_OUTPUTS = ("image_embeddings",)
DECODER_OUTPUTS = ("low_res_masks", "iou_predictions")
ENCODE = "encode"
"""Name of the encoder's signature in TFLite files."""
TFLITE_PROMPTS = ((1, 2), (1, 8))
"""Prompts and points of the TFLite decoder's signatures: a click or a box; several clicks.

A signature for 16 prompts was no faster for each of them, with one thread or two.
"""
STAGED_POINTS = 2
"""Points of a prompt of the TFLite decoder in two calls, which takes one prompt at a time."""
ATTEND_INPUTS = ("image_embeddings", "point_coords", "point_labels")
ATTEND_OUTPUTS, UPSCALE_OUTPUTS = ("cells", "mask_weights", "iou_predictions"), ("low_res_masks",)
ALL = -np.inf
"""The ONNX decoder's `iou_threshold` that drops no mask."""
LAYOUTS = {"onnx": "NCHW", "tflite": "NHWC"}


def decode_name(prompts: int, points: int) -> str:
    """Name of a TFLite decoder signature."""
    return f"decode_{prompts}x{points}"


def channels_last(tensor: Floats) -> Floats:
    """(B, C, H, W) -> (B, H, W, C), contiguous."""
    return np.ascontiguousarray(tensor.transpose(0, 2, 3, 1))


def encoder_signature(engine: str, image_size: int) -> dict[str, Signature]:
    """The encoder's tensors by signature name."""
    size, grid = image_size, image_size // 16
    if engine == "onnx":
        image, embedding = (1, 3, size, size), (1, EMBED_DIM, grid, grid)
    else:
        image, embedding = (1, size, size, 3), (1, grid, grid, EMBED_DIM)
    signature = Signature({"image": TensorSpec(image)}, {"image_embeddings": TensorSpec(embedding)})
    return {"" if engine == "onnx" else ENCODE: signature}


def decoder_signature(engine: str, image_size: int, masks: int, prompts: int | str, points: int | str) -> Signature:
    """The decoder's tensors for `prompts` prompts of `points` points."""
    grid = image_size // 16
    side = 4 * grid
    nchw = engine == "onnx"
    inputs = {
        "image_embeddings": TensorSpec((1, EMBED_DIM, grid, grid) if nchw else (1, grid, grid, EMBED_DIM)),
        "point_coords": TensorSpec((prompts, points, 2)),
        "point_labels": TensorSpec((prompts, points)),
        "mask_input": TensorSpec((1, 1, side, side) if nchw else (1, side, side, 1)),
        "has_mask_input": TensorSpec((1,)),
    }
    if nchw:
        inputs["iou_threshold"] = TensorSpec((1,))
    return Signature(
        inputs,
        {
            "low_res_masks": TensorSpec(("kept" if nchw else prompts, masks, side, side)),
            "iou_predictions": TensorSpec((prompts, masks)),
        },
    )


def stage_signatures(image_size: int, masks: int) -> dict[str, Signature]:
    """The TFLite decoder in two calls: predicted IoU first, and the upscaling for masks that are wanted."""
    grid = image_size // 16
    cells, weights = TensorSpec((1, grid * grid, EMBED_DIM)), TensorSpec((1, masks, EMBED_DIM // 8))
    whole = decoder_signature("tflite", image_size, masks, 1, STAGED_POINTS)
    return {
        ATTEND: Signature(
            {name: whole.inputs[name] for name in ATTEND_INPUTS},
            {"cells": cells, "mask_weights": weights, "iou_predictions": whole.outputs["iou_predictions"]},
        ),
        UPSCALE: Signature(
            {"cells": cells, "mask_weights": weights}, {"low_res_masks": whole.outputs["low_res_masks"]}
        ),
    }


def decoder_signatures(engine: str, image_size: int, masks: int) -> dict[str, Signature]:
    """All of the decoder's signatures by name."""
    if engine == "onnx":
        return {"": decoder_signature(engine, image_size, masks, "prompts", "points")}
    whole = {decode_name(p, n): decoder_signature(engine, image_size, masks, p, n) for p, n in TFLITE_PROMPTS}
    return {**whole, **stage_signatures(image_size, masks)}


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
    coords, labels = prompts["point_coords"], prompts["point_labels"]
    missing = slots - labels.shape[1]
    rows = np.minimum(np.arange(count), len(labels) - 1)
    return {
        **prompts,
        "point_coords": np.pad(coords, ((0, 0), (0, missing), (0, 0)))[rows],
        "point_labels": np.pad(labels, ((0, 0), (0, missing)), constant_values=-2)[rows],
    }


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
    signatures = (
        encoder_signature(engine, image_size) if part == "encoder" else decoder_signatures(engine, image_size, masks)
    )
    return ModelFile(
        path=path.name,
        part=part,
        precision=precision,
        engine=engine,
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        layout=LAYOUTS[engine],
        signatures=signatures,
        input="normalized" if part == "encoder" else None,
    )
