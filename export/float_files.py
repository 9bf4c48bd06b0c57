"""The four float files: encoder and decoder, ONNX and TFLite."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from tinysam.calibration.arrays import Floats
from tinysam.calibration.feeds import prompt_feed
from tinysam.export.decoder_graph import AttendStage, DecoderGraph, SelectiveDecoder, UpscaleStage, decoder_graph
from tinysam.export.encoder_graph import encoder_graph
from tinysam.export.onnx_export import to_onnx
from tinysam.export.reference import ReferenceCase
from tinysam.export.tensors import (
    ATTEND_INPUTS,
    ATTEND_OUTPUTS,
    DECODER_OUTPUTS,
    ENCODE,
    ENCODER_OUTPUTS,
    STAGED_POINTS,
    TFLITE_PROMPTS,
    UPSCALE_OUTPUTS,
    channels_last,
    decoder_inputs,
    encoder_inputs,
    fill_slots,
)
from tinysam.export.tflite_export import TFLiteSignature, to_tflite
from tinysam.models.sam import Sam
from tinysam.runtime.contract import ATTEND, UPSCALE, decode_name

Case = tuple[str, Mapping[str, Floats], Mapping[str, Floats]]


def tensors(arrays: Mapping[str, Floats]) -> dict[str, torch.Tensor]:
    """The same values as PyTorch tensors."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def write_encoder_onnx(sam: Sam, case: ReferenceCase, path: Path, last: bool = False) -> None:
    """Encoder to ONNX; with `last` its embedding is channel-last, as the TFLite file has it."""
    graph = encoder_graph(sam.image_encoder, sam.image_size, channels_last=last)
    to_onnx(graph, tensors({"image": case.image}), ENCODER_OUTPUTS, path)


def write_encoder_tflite(sam: Sam, case: ReferenceCase, path: Path) -> None:
    """Encoder to TFLite, by way of an ONNX file beside it that is removed."""
    source = path.with_suffix(".tmp.onnx")
    write_encoder_onnx(sam, case, source, last=True)
    to_tflite([TFLiteSignature(ENCODE, source, {"image": case.image}, ENCODER_OUTPUTS, ("image",))], path)
    source.unlink()


def write_decoder_onnx(sam: Sam, mask_tokens: tuple[int, ...], case: ReferenceCase, path: Path) -> None:
    """Decoder to ONNX with free numbers of prompts and points."""
    axes = {0: "prompts", 1: "points"}
    clicks, boxes = case.prompts[0], case.prompts[1]
    example = dict(clicks)
    for name in ("point_coords", "point_labels"):  # as many points as no other axis has
        example[name] = np.concatenate([clicks[name], boxes[name], clicks[name][:, :1]], axis=1)
    to_onnx(
        SelectiveDecoder(decoder_graph(sam, mask_tokens)).eval(),
        tensors(decoder_inputs("onnx", case.embedding, example)),
        DECODER_OUTPUTS,
        path,
        {"point_coords": axes, "point_labels": axes},
    )


def write_decoder_tflite(sam: Sam, mask_tokens: tuple[int, ...], case: ReferenceCase, path: Path) -> None:
    """Decoder to TFLite with one signature per number of prompts and points."""
    graph = decoder_graph(sam, mask_tokens, channels_last=True)
    signatures = []
    for prompts, points in TFLITE_PROMPTS:
        name = decode_name(prompts, points)
        source = path.with_suffix(f".{name}.onnx")
        feed = fill_slots(case.prompts[0], prompts, points)
        # Example values of a mask input that counts, so that no operation sees zeros only.
        mask = case.answers[0]["low_res_masks"][:1, :1]
        feed = prompt_feed(feed["point_coords"], feed["point_labels"], np.ascontiguousarray(mask), mask.shape[-1])
        inputs = {"image_embeddings": channels_last(case.embedding), **feed}
        to_onnx(graph, tensors(inputs), DECODER_OUTPUTS, source)
        signatures.append(TFLiteSignature(name, source, inputs, DECODER_OUTPUTS, ("mask_input",)))
    signatures += stages(graph, case, path)
    to_tflite(signatures, path)
    for signature in signatures:
        signature.onnx.unlink()


def stages(graph: DecoderGraph, case: ReferenceCase, path: Path) -> list[TFLiteSignature]:
    """The decoder in two calls; writes their ONNX files beside `path`."""
    feed = {"image_embeddings": channels_last(case.embedding), **cut(fill_slots(case.prompts[0], 1, STAGED_POINTS), 1)}
    prompt = {name: feed[name] for name in ATTEND_INPUTS}
    attend, upscale = AttendStage(graph).eval(), UpscaleStage(graph).eval()
    with torch.no_grad():
        cells, weights, _ = attend(*tensors(prompt).values())
    found = {"cells": cells.numpy(), "mask_weights": weights.numpy()}
    made = []
    for name, stage, inputs, outputs in (
        (ATTEND, attend, prompt, ATTEND_OUTPUTS),
        (UPSCALE, upscale, found, UPSCALE_OUTPUTS),
    ):
        source = path.with_suffix(f".{name}.onnx")
        to_onnx(stage, tensors(inputs), outputs, source)
        made.append(TFLiteSignature(name, source, inputs, outputs))
    return made


def encoder_cases(engine: str, cases: list[ReferenceCase]) -> list[Case]:
    """What to run the encoder file on and what it must answer."""
    signature = "" if engine == "onnx" else ENCODE
    found: list[Case] = []
    for case in cases:
        embedding = case.embedding if engine == "onnx" else channels_last(case.embedding)
        found.append((signature, encoder_inputs(engine, case.image), {"image_embeddings": embedding}))
    return found


def decoder_cases(engine: str, cases: list[ReferenceCase]) -> list[Case]:
    """What to run the decoder file on and what it must answer, for every signature that has room."""
    found: list[Case] = []
    for case in cases:
        for prompts, answer in zip(case.prompts, case.answers, strict=True):
            if engine == "onnx":
                found.append(("", decoder_inputs(engine, case.embedding, prompts), answer))
                continue
            count, points = prompts["point_labels"].shape
            for size, slots in TFLITE_PROMPTS:
                if points <= slots:
                    rows = np.minimum(np.arange(size), count - 1)
                    filled = decoder_inputs(engine, case.embedding, cut(fill_slots(prompts, size, slots), size))
                    expected = {name: values[rows] for name, values in answer.items()}
                    found.append((decode_name(size, slots), filled, expected))
                    if (size, slots) == (1, STAGED_POINTS) and not prompts["has_mask_input"][0]:
                        found.append((ATTEND, filled, expected))
    return found


def cut(prompts: Mapping[str, Floats], count: int) -> dict[str, Floats]:
    """The first `count` prompts."""
    return {name: a[:count] if name.startswith("point") else a for name, a in prompts.items()}
