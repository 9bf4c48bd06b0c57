"""PyTorch edge graph to ONNX: dynamo exporter, opset 20, simplified by onnxsim."""

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxsim
import torch
from torch import Tensor, nn

from tinysam.export.errors import ExportError

OPSET = 20
"""First opset with `Gelu` as one operation; `LayerNormalization` has been one since 17."""


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
