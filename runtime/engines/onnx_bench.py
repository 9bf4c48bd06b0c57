"""ONNX files for `tinysam-bench`: a matrix product as a model, and the multiply-accumulates of a model.

A file may have free axes. To be counted it runs once, without optimizations, and ONNX Runtime's profiler tells the
shapes of what is computed; those of constants stand in the file.
"""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinysam.runtime.bench.limit import Job, left_type, matrix, product_precision
from tinysam.runtime.engines import usable_cores
from tinysam.runtime.engines.onnx import open_session

Shape = Sequence[int]
_INT32 = 6
"""ONNX's number of the type that integer products have."""
_TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}


def product_job(precision: str, threads: int, side: int) -> Job:
    """One product of (side, side) matrices."""
    session = open_session(onnx_product(precision, side), threads)
    return partial(session.run, None, {"left": matrix(left_type(precision), side)})


def onnx_product(precision: str, side: int) -> bytes:
    """An ONNX file: `left` (side, side) times a constant matrix."""
    kinds = {np.float32: 1, np.uint8: 2, np.int8: 3}
    is_float = product_precision(precision) == "fp32"
    left, right = left_type(precision), np.float32 if is_float else np.int8
    name = "MatMul" if is_float else "MatMulInteger"
    node = _text(1, "left") + _text(1, "right") + _text(2, "out") + _text(4, name)
    weights = (
        _number(1, side) * 2 + _number(2, kinds[right]) + _text(8, "right") + _field(9, matrix(right, side).tobytes())
    )
    graph = _field(1, node) + _text(2, "product") + _field(5, weights)
    graph += _field(11, _tensor("left", kinds[left], side)) + _field(
        12, _tensor("out", 1 if is_float else _INT32, side)
    )
    return _number(1, 8) + _field(7, graph) + _field(8, _text(1, "") + _number(2, 13))


def _tensor(name: str, kind: int, side: int) -> bytes:
    """A protocol buffer ValueInfoProto."""
    shape = _field(1, _number(1, side)) * 2
    return _text(1, name) + _field(2, _field(1, _number(1, kind) + _field(2, shape)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _field(field, text.encode())


def count_macs(path: Path, signature: str | None, lengths: Mapping[str, int], values: Mapping[str, float]) -> int:
    """See `tinysam.runtime.bench.macs.count_macs`; there is one signature only."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(path, usable_cores(), optimize=False, profile=Path(folder) / "profile")
        inputs = {}
        for tensor in session.get_inputs():
            shape = [lengths.get(axis, 1) if isinstance(axis, str) else axis for axis in tensor.shape]
            inputs[tensor.name] = np.full(shape, values.get(tensor.name, 1), _TYPES[tensor.type])
        session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    weights = _onnx_weights(path.read_bytes())
    nodes = {
        event["name"].removesuffix("_kernel_time"): event["args"] for event in events if "_kernel_time" in event["name"]
    }
    return sum(_onnx_macs(node, weights.get(name, {})) for name, node in nodes.items())


def _onnx_macs(node: Mapping[str, Any], constants: Mapping[int, Shape]) -> int:
    """Of one operation, by the profiler's account of it and the shapes of those of its operands that are constant."""
    kind = node["op_name"]
    if kind not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    computed = iter(node["input_type_shape"])
    left, right = (constants[i] if i in constants else _shape(next(computed)) for i in (0, 1))
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


def _onnx_weights(model: bytes) -> dict[str, dict[int, Shape]]:
    """Node name -> which of its operands are initializers, and their shapes."""
    (whole,) = (content for field, content in _fields(memoryview(model)) if field == 7)
    shapes: dict[str, Shape] = {}
    found: dict[str, dict[int, Shape]] = {}
    for graph in _onnx_graphs(whole):
        for tensor in (content for field, content in _fields(graph) if field == 5):
            fields = list(_fields(tensor))
            shapes[_only(fields, 8)] = [value for field, value in fields if field == 1]
        for node in (list(_fields(content)) for field, content in _fields(graph) if field == 1):
            operands = [bytes(value).decode() for field, value in node if field == 1]
            found[_only(node, 3)] = {i: shapes[name] for i, name in enumerate(operands) if name in shapes}
    return found


def _onnx_graphs(graph: memoryview) -> Iterator[memoryview]:
    """A graph and those in the attributes of its nodes."""
    yield graph
    for node in (content for field, content in _fields(graph) if field == 1):
        for attribute in (content for field, content in _fields(node) if field == 5):
            for branch in (content for field, content in _fields(attribute) if field == 6):
                yield from _onnx_graphs(branch)


def _only(message: list[tuple[int, Any]], wanted: int) -> str:
    return next((bytes(value).decode() for field, value in message if field == wanted), "")


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """(number, content) of a protocol buffer's fields."""
    place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = _read_varint(message, place)
            yield field, value
        elif kind == 2:
            length, place = _read_varint(message, place)
            yield field, message[place : place + length]
            place += length
        else:
            place += {1: 8, 5: 4}[kind]


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
