"""TFLite: float files by way of ONNX files and onnx2tf, INT8 and fp16 files from the float ones.

A TFLite decoder has one signature per number of prompts and points, and three more for many points on one photograph:
what depends on the photograph alone, predicted IoU, the masks for prompts that are wanted.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema

from tinysam.calibration import operations
from tinysam.calibration.feeds import prompt_feed
from tinysam.calibration.half import allow_half, store_half
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.parameters import replace_tflite
from tinysam.calibration.pixel_input import take_pixels_tflite
from tinysam.calibration.tflite_cheap import make_cheap
from tinysam.calibration.tflite_constants import dequantize_code, pack_constants, to_bytes
from tinysam.calibration.tflite_half import prefer_half
from tinysam.calibration.tflite_int8 import operations_of, quantize_tflite
from tinysam.export.decoder_graph import AttendStage, DecoderGraph, PrepareStage, UpscaleStage, decoder_graph
from tinysam.export.encoder_graph import encoder_graph
from tinysam.export.formats.onnx import to_onnx
from tinysam.export.formats.onnx2tf import TFLiteSignature, to_tflite
from tinysam.export.formats.writer import Quantizer, Writer, tensors
from tinysam.export.reference import ReferenceCase
from tinysam.export.tensors import DECODER_OUTPUTS, ENCODER_OUTPUTS, channels_last, cut, fill_slots
from tinysam.models.sam import MEAN, STD, Sam
from tinysam.runtime.contract import ATTEND, PREPARE, STAGE_POINTS, UPSCALE, Sizes, decode_name, stage_signatures
from tinysam.runtime.engines.formats import TFLITE
from tinysam.runtime.process import quiet_native


class TfliteQuantizer(Quantizer):
    """INT8 files, and files with fp16 weights."""

    form = TFLITE

    @cached_property
    def source(self) -> bytes:
        """The equalized float file."""
        model = schema.ModelT.InitFromPackedBuf(self.path("fp32").read_bytes(), 0)
        replace_tflite(model, self.part.source, self.part.parameters)
        return to_bytes(model)

    def write_int8(self, keep_float: frozenset[str]) -> dict[str, Any]:
        """See `Quantizer.write_int8`.

        What is float runs in fp16, if the model bears that and the processor can.
        """
        part = self.part
        with quiet_native():
            kept = keep_float | part.always_float(operations.TFLITE)
            dynamic = part.stored | (part.dynamic(operations.TFLITE) - keep_float)
            prepare = PREPARE if part.name == "decoder" else ""
            content, facts = quantize_tflite(self.source, Graph(part.graph), part.found, kept, dynamic, prepare)
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        if part.name == "encoder":
            take_pixels_tflite(model, MEAN, STD, dequantize_code(model))
        prefer_half(model)
        make_cheap(model)
        pack_constants(model)
        if self.half:
            allow_half(model)
        self.path("int8").write_bytes(to_bytes(model))
        return facts | operations_of(model)

    def write_half(self) -> None:
        """See `Quantizer.write_half`; an encoder computes in fp16 where the processor does."""
        model = schema.ModelT.InitFromPackedBuf(self.source, 0)
        if self.part.name == "encoder":
            make_cheap(model)
            allow_half(model)
        store_half(model)
        self.path("fp16").write_bytes(to_bytes(model))


class TfliteWriter(Writer):
    """ONNX files of fixed shapes are written beside the TFLite file, converted and removed."""

    form = TFLITE
    tolerance = 1e-3
    quantizer = TfliteQuantizer

    def write_encoder(self, sam: Sam, case: ReferenceCase, path: Path) -> None:
        """See `Writer.write_encoder`."""
        source = path.with_suffix(".tmp.onnx")
        graph = encoder_graph(sam.image_encoder, sam.image_size, channels_last=True)
        to_onnx(graph, tensors({"image": case.image}), ENCODER_OUTPUTS, source)
        signature = TFLiteSignature(self.form.encode, source, {"image": case.image}, ENCODER_OUTPUTS, ("image",))
        to_tflite([signature], path)
        source.unlink()

    def write_decoder(self, sam: Sam, mask_tokens: tuple[int, ...], case: ReferenceCase, path: Path) -> None:
        """See `Writer.write_decoder`."""
        graph = decoder_graph(sam, mask_tokens, channels_last=True)
        signatures = []
        for prompts, points in self.form.batches:
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
    """The decoder in steps, see `stage_signatures`; writes their ONNX files beside `path`."""
    modules = {PREPARE: PrepareStage(graph), ATTEND: AttendStage(graph), UPSCALE: UpscaleStage(graph)}
    known = {"image_embeddings": channels_last(case.embedding), **cut(fill_slots(case.prompts[0], 1, STAGE_POINTS), 1)}
    sizes, made = Sizes(case.image.shape[-1], len(graph.mask_tokens)), []
    for name, signature in stage_signatures(TFLITE.layout, sizes).items():
        module, source = modules[name].eval(), path.with_suffix(f".{name}.onnx")
        inputs, outputs = {tensor: known[tensor] for tensor in signature.inputs}, tuple(signature.outputs)
        with torch.no_grad():
            results = module(*tensors(inputs).values())
        known |= {tensor: result.numpy() for tensor, result in zip(outputs, results, strict=True)}
        to_onnx(module, tensors(inputs), outputs, source)
        made.append(TFLiteSignature(name, source, inputs, outputs))
    return made
