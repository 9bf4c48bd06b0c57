"""Hints for onnx2tf where shapes do not tell the layout of a tensor.

onnx2tf keeps images channel-last and recognizes a change between the two layouts by the shapes on both sides. Where a
square map has as many channels as its side is long (128 in the second stage of TinyViT-5M at 1024), the shapes are
equal and it transposes a tensor that is channel-last already, without a warning. Its parameter replacement file
corrects that.
"""

import json
from pathlib import Path
from typing import Any

import onnx

TO_LAST, TO_FIRST, STAY = [0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 2, 3]


def shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Static shape of every tensor that has one."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values}


def is_ambiguous(shape: list[int]) -> bool:
    """Whether NCHW and NHWC have the same shape."""
    return len(shape) == 4 and shape[1] == shape[2] == shape[3]


def layout_hints(model: onnx.ModelProto) -> dict[str, Any] | None:
    """onnx2tf's parameter replacements for a graph; None if it needs none."""
    known = shapes(model)
    readers = {name: node for node in model.graph.node for name in node.input}
    nothing = onnx.NodeProto()
    operations: list[dict[str, Any]] = []
    for node in model.graph.node:
        if node.op_type != "Transpose" or not is_ambiguous(known.get(node.input[0], [])):
            continue
        permutation, reader = list(node.attribute[0].ints), readers.get(node.output[0], nothing)
        if permutation == TO_FIRST and reader.op_type == "Conv":
            operations.append(
                {"op_name": node.name, "param_target": "attributes", "param_name": "perm", "values": STAY}
            )
        if permutation == TO_LAST and reader.op_type == "Reshape":
            # onnx2tf will turn the map channel-first; turned channel-last before, it stays as it is
            operations.append(
                {
                    "op_name": reader.name,
                    "param_target": "inputs",
                    "param_name": node.output[0],
                    "pre_process_transpose_perm": TO_LAST,
                }
            )
    return {"format_version": 1, "operations": operations} if operations else None


def write_hints(source: Path, destination: Path) -> Path | None:
    """Writes the replacement file of an ONNX file; None if it needs none."""
    hints = layout_hints(onnx.load(source))
    if hints is None:
        return None
    destination.write_text(json.dumps(hints), encoding="utf-8")
    return destination
