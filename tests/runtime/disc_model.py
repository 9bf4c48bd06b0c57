"""A model whose answers are known by hand: masks are discs around the mean of a prompt's points.

Encoder: the mean of each channel of the normalized image, at every cell. Decoder: mask k of a prompt has the logit
`radius_k - distance` (in pixels of the model's input) at the centre of each low-res pixel, plus a hundredth of the
embedding's mean, plus the mask input. Its predicted IoU is `IOUS[k]` minus a thousandth of the points' mean x.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinysam.runtime.contract import Sizes, encoder_signature
from tinysam.runtime.manifest import (
    EverythingThresholds,
    Manifest,
    ModelFile,
    Signature,
    TensorSpec,
    sha256_file,
    write_manifest,
)

SIZE = 64
GRID, SIDE = SIZE // 16, SIZE // 4
RADII = (6.0, 12.0, 20.0)
IOUS = (0.7, 0.9, 0.8)
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
THRESHOLDS = EverythingThresholds(
    points_per_side=8, pred_iou_thresh=0.5, stability_score_thresh=0.5, coarse_logit_thresh=2.0
)
_CHANNELS = 256


def build(
    folder: Path,
    mask_tokens: tuple[int, ...] = (1, 2, 3),
    thresholds: EverythingThresholds = THRESHOLDS,
    pixel_dtype: str | None = None,
    **fields: Any,
) -> Path:
    """Writes `disc-64` artifacts for the onnx engine, fp32 and int8 being the same; returns their folder.

    With `pixel_dtype` (`uint8` or `float32`) the encoder takes pixels and normalizes by itself. `fields` are further
    ones of the manifest.
    """
    out = folder / f"disc-{SIZE}"
    out.mkdir(parents=True)
    kind = "pixels" if pixel_dtype else "normalized"
    encoder = encoder_signature("NCHW", Sizes(SIZE, 1), kind, pixel_dtype or "float32")
    onnx.save(_encoder(encoder), out / "encoder.onnx")
    onnx.save(_decoder(mask_tokens), out / "decoder.onnx")
    files = tuple(
        ModelFile(
            path=f"{part}.onnx",
            part=part,
            precision=precision,
            engine="onnx",
            sha256=sha256_file(out / f"{part}.onnx"),
            size_bytes=(out / f"{part}.onnx").stat().st_size,
            layout="NCHW",
            signatures={"": signature},
            input=kind if part == "encoder" else None,
        )
        for precision in ("fp32", "int8")
        for part, signature in (("encoder", encoder), ("decoder", _decoder_tensors(len(mask_tokens))))
    )
    # One path may appear once in a manifest: int8 gets copies.
    listed = []
    for file in files:
        path = f"{file.part}.{file.precision}.onnx"
        (out / path).write_bytes((out / file.path).read_bytes())
        listed.append(ModelFile(**{**vars(file), "path": path}))
    (out / "encoder.onnx").unlink()
    (out / "decoder.onnx").unlink()
    write_manifest(Manifest("disc", SIZE, GRID, MEAN, STD, mask_tokens, tuple(listed), thresholds, **fields), out)
    return out


def _decoder_tensors(masks: int) -> Signature:
    inputs = {
        "image_embeddings": TensorSpec((1, _CHANNELS, GRID, GRID)),
        "point_coords": TensorSpec(("P", "N", 2)),
        "point_labels": TensorSpec(("P", "N")),
        "mask_input": TensorSpec((1, 1, SIDE, SIDE)),
        "has_mask_input": TensorSpec((1,)),
        "iou_threshold": TensorSpec((1,)),
    }
    outputs = {"low_res_masks": TensorSpec(("K", masks, SIDE, SIDE)), "iou_predictions": TensorSpec(("P", masks))}
    return Signature(inputs, outputs)


def _values(tensors: dict[str, TensorSpec]) -> list[onnx.ValueInfoProto]:
    types = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}
    return [helper.make_tensor_value_info(name, types[spec.dtype], spec.shape) for name, spec in tensors.items()]


def _model(nodes: list[onnx.NodeProto], signature: Signature, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "disc",
        _values(signature.inputs),
        _values(signature.outputs),
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def _encoder(signature: Signature) -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["normalized", "axes"], ["mean_of_all"], keepdims=1),
        node("Expand", ["mean_of_all", "shape"], ["image_embeddings"]),
    ]
    constants = {
        "axes": np.array([1, 2, 3], np.int64),
        "shape": np.array([1, _CHANNELS, GRID, GRID], np.int64),
    }
    if signature.inputs["image"].shape[1] == 3:
        return _model([node("Identity", ["image"], ["normalized"]), *nodes], signature, constants)
    constants |= {
        "parts": np.array([3, 1], np.int64),
        "mean": np.array(MEAN, np.float32).reshape(1, 3, 1, 1),
        "std": np.array(STD, np.float32).reshape(1, 3, 1, 1),
    }
    own = [
        node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        node("Split", ["numbers", "parts"], ["rgb", "inside"], axis=1),
        node("Mul", ["inside", "mean"], ["mean_inside"]),
        node("Sub", ["rgb", "mean_inside"], ["centred"]),
        node("Div", ["centred", "std"], ["normalized"]),
    ]
    return _model([*own, *nodes], signature, constants)


def _decoder(mask_tokens: tuple[int, ...]) -> onnx.ModelProto:
    masks = len(mask_tokens)
    judged = [index for index, token in enumerate(mask_tokens) if token != 0] or [0]
    radii = np.resize(np.array(RADII, np.float32), masks).reshape(1, masks, 1, 1)
    ious = np.resize(np.array(IOUS, np.float32), masks).reshape(1, masks)
    centres = (np.arange(SIDE, dtype=np.float32) + 0.5) * 4
    constants = {
        "zero": np.float32(0),
        "least": np.float32(1),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "outer": np.array([0], np.int64),
        "radii": radii,
        "ious": ious,
        "x": centres.reshape(1, 1, SIDE),
        "y": centres.reshape(1, SIDE, 1),
        "weight": np.float32(0.01),
        "thousandth": np.float32(0.001),
        "judged": np.array(judged, np.int64),
        "cells": np.array([1, 2, 3], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("GreaterOrEqual", ["point_labels", "zero"], ["is_real"]),
        node("Cast", ["is_real"], ["real"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["real", "two"], ["real3"]),
        node("Mul", ["point_coords", "real3"], ["kept"]),
        node("ReduceSum", ["kept", "one"], ["sum"], keepdims=1),
        node("ReduceSum", ["real3", "one"], ["real_count"], keepdims=1),
        node("Max", ["real_count", "least"], ["count"]),
        node("Div", ["sum", "count"], ["centre"]),
        node("Split", ["centre"], ["cx", "cy"], axis=2, num_outputs=2),
        node("Sub", ["x", "cx"], ["dx"]),
        node("Sub", ["y", "cy"], ["dy"]),
        node("Mul", ["dx", "dx"], ["dx2"]),
        node("Mul", ["dy", "dy"], ["dy2"]),
        node("Add", ["dx2", "dy2"], ["d2"]),
        node("Sqrt", ["d2"], ["d"]),
        node("Unsqueeze", ["d", "one"], ["d4"]),
        node("Sub", ["radii", "d4"], ["disc"]),
        node("ReduceMean", ["image_embeddings", "cells"], ["brightness"], keepdims=1),
        node("Mul", ["brightness", "weight"], ["shift"]),
        node("Add", ["disc", "shift"], ["shifted"]),
        node("Mul", ["mask_input", "has_mask_input"], ["prior"]),
        node("Add", ["shifted", "prior"], ["all_masks"]),
        node("Squeeze", ["cx", "two"], ["cx2"]),
        node("Mul", ["cx2", "thousandth"], ["penalty"]),
        node("Sub", ["ious", "penalty"], ["iou_predictions"]),
        node("Gather", ["iou_predictions", "judged"], ["candidates"], axis=1),
        node("ReduceMax", ["candidates", "one"], ["best"], keepdims=0),
        node("Greater", ["best", "iou_threshold"], ["passed"]),
        node("NonZero", ["passed"], ["places"]),
        node("Squeeze", ["places", "outer"], ["kept_places"]),
        node("Gather", ["all_masks", "kept_places"], ["low_res_masks"], axis=0),
    ]
    return _model(nodes, _decoder_tensors(masks), constants)
