"""ONNX: float files by PyTorch's exporter, INT8 files by `tinysam.calibration.onnx_int8`."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tinysam.calibration.onnx_int8 import OnnxScheme, quantize_onnx
from tinysam.calibration.pixel_input import take_pixels_onnx
from tinysam.export.decoder_graph import SelectiveDecoder, decoder_graph
from tinysam.export.encoder_graph import encoder_graph
from tinysam.export.formats.writer import Quantizer, Writer, tensors
from tinysam.export.int8.part import Part
from tinysam.export.onnx_export import to_onnx
from tinysam.export.reference import ReferenceCase
from tinysam.export.tensors import DECODER_OUTPUTS, ENCODER_OUTPUTS, decoder_inputs
from tinysam.models.sam import MEAN, STD, Sam
from tinysam.runtime.engines.formats import ONNX


def int8_graph(part: Part, keep_float: frozenset[str]) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """INT8 graph that takes what the float graph takes, and what the manifest says of it."""
    scheme = OnnxScheme(part.target, keep_float | part.always_float, attention=part.name == "encoder")
    return quantize_onnx(part.graph, part.found, scheme)


class OnnxQuantizer(Quantizer):
    """INT8 files with quantize and dequantize operations (QDQ)."""

    form = ONNX

    def write_int8(self, keep_float: frozenset[str]) -> dict[str, Any]:
        """See `Quantizer.write_int8`."""
        model, facts = int8_graph(self.part, keep_float)
        if self.part.name == "encoder":
            take_pixels_onnx(model, MEAN, STD)
        onnx.save(model, self.path("int8"))
        return facts


class OnnxWriter(Writer):
    """Decoders have one signature, with free numbers of prompts and points."""

    form = ONNX
    tolerance = 1e-4
    quantizer = OnnxQuantizer

    def write_encoder(self, sam: Sam, case: ReferenceCase, path: Path) -> None:
        """See `Writer.write_encoder`."""
        to_onnx(encoder_graph(sam.image_encoder, sam.image_size), tensors({"image": case.image}), ENCODER_OUTPUTS, path)

    def write_decoder(self, sam: Sam, mask_tokens: tuple[int, ...], case: ReferenceCase, path: Path) -> None:
        """See `Writer.write_decoder`."""
        axes = {0: "prompts", 1: "points"}
        clicks, boxes = case.prompts[0], case.prompts[1]
        example = dict(clicks)
        for name in ("point_coords", "point_labels"):  # as many points as no other axis has
            example[name] = np.concatenate([clicks[name], boxes[name], clicks[name][:, :1]], axis=1)
        to_onnx(
            SelectiveDecoder(decoder_graph(sam, mask_tokens)).eval(),
            tensors(decoder_inputs(self.form, case.embedding, example)),
            DECODER_OUTPUTS,
            path,
            {"point_coords": axes, "point_labels": axes},
        )
