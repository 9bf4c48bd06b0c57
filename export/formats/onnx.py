"""ONNX: float files by PyTorch's exporter, INT8 files by `tinysam.calibration.onnx_int8`.

`to_onnx` exports any edge graph: dynamo exporter, opset 20, simplified by onnxsim. TFLite files are made from these.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxsim
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from tinysam.calibration import operations
from tinysam.calibration.onnx_int8 import OnnxScheme, quantize_onnx
from tinysam.calibration.optional_input import skip_unless_given
from tinysam.calibration.pixel_columns import multiply_pixels
from tinysam.calibration.pixel_input import take_pixels_onnx
from tinysam.calibration.spread import spread
from tinysam.export.decoder_graph import SelectiveDecoder, decoder_graph
from tinysam.export.encoder_graph import encoder_graph
from tinysam.export.errors import ExportError
from tinysam.export.formats.writer import Quantizer, Writer, tensors
from tinysam.export.int8.part import Part
from tinysam.export.reference import ReferenceCase
from tinysam.export.tensors import DECODER_OUTPUTS, ENCODER_OUTPUTS, decoder_inputs
from tinysam.models.sam import MEAN, STD, Sam
from tinysam.runtime.engines.formats import ONNX

OPSET = 20
"""First opset with `Gelu` as one operation; `LayerNormalization` has been one since 17."""
HALF = {"encoder": ("Gelu", "Conv"), "decoder": ("MatMul",)}
"""Float operations that compute in fp16 where the processor can, see `tinysam.calibration.onnx_half`."""

MASK_PROMPT = "decoder.mask_prompt.last"
"""Constant of a decoder's last product with the mask prompt, see `tinysam.export.decoder_prompts.MaskPrompt`."""


def int8_graph(part: Part, keep_float: frozenset[str], half: bool = False) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """INT8 graph that takes what the float graph takes, and what the manifest says of it.

    Args:
        part: encoder or decoder.
        keep_float: nodes that stay float.
        half: whether some float operations may compute in fp16, see `HALF`.
    """
    kept, encoder = keep_float | part.always_float(operations.ONNX), part.name == "encoder"
    scheme = OnnxScheme(part.target, kept, part.stored, attention=encoder, half=HALF[part.name] if half else ())
    return quantize_onnx(spread(part.graph, part.factors), part.found, scheme)


def skip_absent_mask(model: onnx.ModelProto) -> None:
    """Changes a decoder in place: it computes the embedding of a mask prompt only where there is one."""
    (node,) = (node for node in model.graph.node if set(node.input) & {MASK_PROMPT})
    (last,) = (tensor for tensor in model.graph.initializer if tensor.name == MASK_PROMPT)
    no_mask = numpy_helper.to_array(last)[-1]
    skip_unless_given(model, "has_mask_input", node.output[0], no_mask[None, None].copy())


class OnnxQuantizer(Quantizer):
    """INT8 files with quantize and dequantize operations (QDQ)."""

    form = ONNX

    def write_int8(self, keep_float: frozenset[str]) -> dict[str, Any]:
        """See `Quantizer.write_int8`."""
        model, facts = int8_graph(self.part, keep_float, self.half)
        if self.part.name == "encoder":
            take_pixels_onnx(model, MEAN, STD)
            if self.part.target == "arm":
                multiply_pixels(model)
        else:
            skip_absent_mask(model)
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


@contextlib.contextmanager
def quiet() -> Any:
    """Keeps the exporter's warnings about optional packages off the terminal."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def to_onnx(
    graph: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: tuple[str, ...],
    path: Path,
    free_axes: Mapping[str, Mapping[int, str]] | None = None,
) -> None:
    """Exports `graph` and writes it to `path`.

    Args:
        graph: module in evaluation mode whose `forward` takes the inputs in order.
        inputs: example tensors by name; a free axis needs an example length of at least 2.
        outputs: names of the outputs.
        path: file to write.
        free_axes: input name -> axis -> name of a dimension that the caller may choose.

    Raises:
        ExportError: onnxsim's result differs from the exported graph.
    """
    named = {axis: torch.export.Dim(axis) for axes in (free_axes or {}).values() for axis in axes.values()}
    dynamic = {name: {axis: named[dim] for axis, dim in (free_axes or {}).get(name, {}).items()} for name in inputs}
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(dynamic.values()) if free_axes else None,
            verbose=False,
        )
        assert program is not None
        simplified, same = onnxsim.simplify(program.model_proto)
    if not same:
        raise ExportError(f"{path.name}: the simplified graph differs from the exported one")
    onnx.checker.check_model(simplified, full_check=True)
    onnx.save(strip(simplified), path)


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Removes what names the exporting machine: source lines, stack traces, doc strings."""
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    model.graph.doc_string = ""
    return model
