"""Float constants of a TFLite file, stored in a smaller type.

The quantizer leaves constants of float operations alone: attention biases are a quarter of a small encoder. Each
becomes a smaller tensor and a DEQUANTIZE operation in front; LiteRT runs that once, when it allocates, because its
input is constant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from tinysam.calibration.arrays import Floats
from tinysam.calibration.qparams import quantize_weight, weight_scales
from tinysam.calibration.tflite_graph import KINDS, LINEAR, float_data
from tinysam.calibration.tflite_writer import kind_of

LARGE_BYTES = 16384
"""Smallest constant that is stored as int8, at the cost of a dequantize operation."""


def dequantize_code(model: Any) -> int:
    """Index of the DEQUANTIZE operation code, added if there is none."""
    for i, code in enumerate(model.operatorCodes):
        if code.builtinCode == schema.BuiltinOperator.DEQUANTIZE:
            return i
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2  # int8 input
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


@dataclass(frozen=True)
class Stored:
    """Values of a constant in a smaller type."""

    content: npt.NDArray[np.generic]
    type: int
    """Of `schema.TensorType`."""
    scale: float | None = None


def as_int8(values: Floats) -> Stored:
    """One scale for the whole constant."""
    flat = values.reshape(1, -1)
    scales = weight_scales(flat, 0)
    return Stored(quantize_weight(flat, scales, 0), schema.TensorType.INT8, float(scales[0]))


def as_half(values: Floats) -> Stored:
    """Rounded to fp16."""
    return Stored(values.astype(np.float16), schema.TensorType.FLOAT16)


class ConstantPacker:
    """Rewrites one model in place; equal buffers stay shared between signatures.

    Args:
        model: flatbuffer object.
        smaller: gives the values of a constant in a smaller type.
    """

    def __init__(self, model: Any, smaller: Callable[[Floats], Stored]) -> None:
        self.model, self.smaller = model, smaller
        self.code = dequantize_code(model)
        self.packed: dict[int, tuple[int, Stored]] = {}

    def pack_buffer(self, tensor: Any) -> tuple[int, Stored]:
        """Index of the smaller version of a tensor's buffer, and what is in it."""
        if tensor.buffer not in self.packed:
            values = float_data(self.model, tensor)
            assert values is not None
            stored = self.smaller(values)
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(stored.content).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            self.packed[tensor.buffer] = len(self.model.buffers) - 1, stored
        return self.packed[tensor.buffer]

    def pack_tensor(self, subgraph: Any, index: int) -> Any:
        """Turns a constant into the output of a new operation, which is returned."""
        tensor = subgraph.tensors[index]
        buffer, stored = self.pack_buffer(tensor)
        small = schema.TensorT()
        small.name, small.shape, small.buffer = tensor.name + b";stored", tensor.shape, buffer
        small.type = stored.type
        if stored.scale is not None:
            small.quantization = schema.QuantizationParametersT()
            small.quantization.scale, small.quantization.zeroPoint = [stored.scale], [0]
        subgraph.tensors.append(small)
        tensor.buffer = 0
        operation = schema.OperatorT()
        operation.opcodeIndex = self.code
        operation.inputs = np.array([len(subgraph.tensors) - 1], np.int32)
        operation.outputs = np.array([index], np.int32)
        operation.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
        operation.builtinOptions = schema.DequantizeOptionsT()
        return operation

    def pack(self, chosen: Callable[[Any], list[int]]) -> None:
        """Packs the constants of every signature; `chosen` gives their indexes in a subgraph."""
        for subgraph in self.model.subgraphs:
            operations = [self.pack_tensor(subgraph, i) for i in chosen(subgraph)]
            subgraph.operators = operations + list(subgraph.operators)
        for old in self.packed:
            self.model.buffers[old].data = None


class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Stores equal vectors once: every signature repeats the scales of the weights that all of them share."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: npt.NDArray[Any]) -> int:
        """Offset of a vector with these values."""
        key = x.dtype.str, x.tobytes()
        if key not in self.written:
            self.written[key] = super().CreateNumpyVector(x)
        return self.written[key]


def large_constants(model: Any, subgraph: Any) -> list[int]:
    """Float constants of at least `LARGE_BYTES`, besides weights: XNNPACK takes those from the file as they are."""
    codes = [kind_of(code) for code in model.operatorCodes]
    weights = {op.inputs[1] for op in subgraph.operators if KINDS.get(codes[op.opcodeIndex]) in LINEAR}
    return [
        i
        for i, tensor in enumerate(subgraph.tensors)
        if i not in weights
        and (values := float_data(model, tensor)) is not None
        and values.ndim >= 3
        and values.nbytes >= LARGE_BYTES
    ]


def pack_constants(model: Any) -> None:
    """Stores the large float constants of a TFLite flatbuffer object as int8, in place."""
    ConstantPacker(model, as_int8).pack(lambda subgraph: large_constants(model, subgraph))


def to_bytes(model: Any) -> bytes:
    """A TFLite flatbuffer object as a file, with equal vectors stored once."""
    builder = SharingBuilder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
