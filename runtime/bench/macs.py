"""Counts the multiply-accumulates of one inference from the model file itself.

Only matrix products and convolutions count, as is usual: element-wise operations are the overhead that a rate in
GMAC/s shows. The count is that of the graph as it was written, whatever the engine makes of it: the same in both
engines, and for fp32 and INT8 but for the fourth channel that an INT8 encoder reads.

1. A TFLite file has fixed shapes: its operators are read with the schema that LiteRT brings along.
2. An ONNX file may have free axes: it runs once, without optimizations, and ONNX Runtime's profiler tells the shapes of
   what is computed. Those of constants stand in the file.
"""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tinysam.runtime.contract import decode_name
from tinysam.runtime.manifest import ModelFile

CLICK = (1, 2)
"""One prompt of two points: the one that was clicked, and SAM's padding point."""
NOTHING: Mapping[str, Any] = MappingProxyType({})
Shape = Sequence[int]


def click_macs(path: Path, file: ModelFile) -> int:
    """Multiply-accumulates of an encoder, or of a decoder that is asked for the masks of one click.

    Raises:
        ImportError: the file's engine is not installed.
    """
    if file.part == "encoder":
        return count_macs(path, next(iter(file.signatures)) or None)
    if "" not in file.signatures:
        return count_macs(path, decode_name(*CLICK))
    axes = file.signatures[""].inputs["point_coords"].shape
    lengths = {axis: length for axis, length in zip(axes, CLICK, strict=False) if isinstance(axis, str)}
    return count_macs(path, lengths=lengths, values={"iou_threshold": -math.inf})


def count_macs(
    path: Path,
    signature: str | None = None,
    lengths: Mapping[str, int] = NOTHING,
    values: Mapping[str, float] = NOTHING,
) -> int:
    """Multiply-accumulates of one run of a model file.

    Args:
        path: `.onnx` or `.tflite` file.
        signature: of a TFLite file; None for its only one.
        lengths: of an ONNX file's free axes by their name; others are 1.
        values: of an ONNX file's inputs that hold one value throughout; others hold ones.

    Raises:
        ImportError: the file's engine is not installed.
        ValueError: no such signature.
    """
    return _count_tflite(path, signature) if path.suffix == ".tflite" else _count_onnx(path, lengths, values)


def _count_tflite(path: Path, signature: str | None) -> int:
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.Model.GetRootAs(path.read_bytes())
    graph = model.Subgraphs(_subgraph(model, signature))
    total = 0
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if kind not in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "BATCH_MATMUL"):
            continue
        left, right = (graph.Tensors(operator.Inputs(place)).ShapeAsNumpy().tolist() for place in (0, 1))
        out = math.prod(graph.Tensors(operator.Outputs(0)).ShapeAsNumpy().tolist())
        if kind == "BATCH_MATMUL":
            options = schema.BatchMatMulOptions()
            options.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
            total += out * left[-2 if options.AdjX() else -1]
        else:
            # Weights: (outputs, inputs), (outputs, h, w, inputs), or (1, h, w, channels) of a depthwise convolution.
            outputs = right[-1] if kind == "DEPTHWISE_CONV_2D" else right[0]
            total += out * (math.prod(right) // outputs)
    return total


def _subgraph(model: Any, signature: str | None) -> int:
    known = {}
    for index in range(model.SignatureDefsLength()):
        definition = model.SignatureDefs(index)
        known[definition.SignatureKey().decode()] = int(definition.SubgraphIndex())
    if signature is None and len(known) <= 1:
        return next(iter(known.values()), 0)
    if signature not in known:
        raise ValueError(f"signature {signature!r}, expected one of {', '.join(sorted(known))}")
    return known[signature]


def _count_onnx(path: Path, lengths: Mapping[str, int], values: Mapping[str, float]) -> int:
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs = {}
        for tensor in session.get_inputs():
            shape = [lengths.get(axis, 1) if isinstance(axis, str) else axis for axis in tensor.shape]
            kind = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}[tensor.type]
            inputs[tensor.name] = np.full(shape, values.get(tensor.name, 1), kind)
        session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    weights = _onnx_weights(path.read_bytes())
    nodes = {
        event["name"].removesuffix("_kernel_time"): event["args"] for event in events if "_kernel_time" in event["name"]
    }
    return sum(_onnx_macs(node, weights.get(name)) for name, node in nodes.items())


def _onnx_macs(node: Mapping[str, Any], weight: Shape | None) -> int:
    """Of one operation, by the profiler's account of it and the shape of its second operand if that is constant."""
    kind = node["op_name"]
    if kind not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    computed = [_shape(operand) for operand in node["input_type_shape"]]
    left, right = computed[0], weight or computed[1]
    out = math.prod(_shape(node["output_type_shape"][0]))
    if kind == "Conv":
        return out * math.prod(right[1:])
    if kind == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    # (..., rows, inner) by (..., inner, columns); Gemm may have either transposed, and rows * columns is `out`.
    if kind == "MatMul":
        return out * left[-1]
    return math.isqrt(math.prod(left) * math.prod(right) * out)


def _shape(operand: Mapping[str, Shape]) -> Shape:
    (shape,) = operand.values()
    return shape


def _onnx_weights(model: bytes) -> dict[str, Shape]:
    """Node name -> shape of its second operand, where that is an initializer."""
    (graph,) = (content for field, content in _fields(memoryview(model)) if field == 7)
    parts = list(_fields(graph))
    shapes = {}
    for _, tensor in (part for part in parts if part[0] == 5):
        told = list(_fields(tensor))
        shapes[_only(told, 8)] = [value for field, value in told if field == 1]
    found: dict[str, Shape] = {}
    for _, node in (part for part in parts if part[0] == 1):
        told = list(_fields(node))
        operands = [bytes(value).decode() for field, value in told if field == 1]
        if len(operands) > 1 and operands[1] in shapes:
            found[_only(told, 3)] = shapes[operands[1]]
    return found


def _only(message: list[tuple[int, Any]], wanted: int) -> str:
    return next((bytes(value).decode() for field, value in message if field == wanted), "")


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """(number, content) of a protocol buffer's fields."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield field, value
        elif kind == 2:
            length, place = _varint(message, place)
            yield field, message[place : place + length]
            place += length
        else:
            place += {1: 8, 5: 4}[kind]


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
