"""Large float constants of a TFLite file, stored as int8.

The quantizer leaves constants of float operations alone: attention biases are a quarter of a small encoder. Each
becomes an int8 tensor and a DEQUANTIZE operation in front; LiteRT runs that once, when it allocates, because its input
is constant.
"""

from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from tinysam.calibration.qparams import quantize_weight, weight_scales
from tinysam.calibration.tflite_graph import float_data

LARGE_BYTES = 16384
"""Constants from this size on are worth an operation."""


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


class ConstantPacker:
    """Rewrites one model; equal buffers stay shared between signatures."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.code = dequantize_code(model)
        self.packed: dict[int, tuple[int, float]] = {}

    def pack_buffer(self, tensor: Any) -> tuple[int, float]:
        """Index of the int8 version of a tensor's buffer, and its scale."""
        if tensor.buffer not in self.packed:
            values = float_data(self.model, tensor)
            assert values is not None
            flat = values.reshape(1, -1)
            scales = weight_scales(flat, 0)
            buffer = schema.BufferT()
            buffer.data = quantize_weight(flat, scales, 0).view(np.uint8).ravel()
            self.model.buffers.append(buffer)
            self.packed[tensor.buffer] = len(self.model.buffers) - 1, float(scales[0])
        return self.packed[tensor.buffer]

    def pack_tensor(self, subgraph: Any, index: int) -> Any:
        """Turns a constant into the output of a new operation, which is returned."""
        tensor = subgraph.tensors[index]
        buffer, scale = self.pack_buffer(tensor)
        stored = schema.TensorT()
        stored.name, stored.shape, stored.buffer = tensor.name + b";int8", tensor.shape, buffer
        stored.type = schema.TensorType.INT8
        stored.quantization = schema.QuantizationParametersT()
        stored.quantization.scale, stored.quantization.zeroPoint = [scale], [0]
        subgraph.tensors.append(stored)
        tensor.buffer = 0
        operation = schema.OperatorT()
        operation.opcodeIndex = self.code
        operation.inputs = np.array([len(subgraph.tensors) - 1], np.int32)
        operation.outputs = np.array([index], np.int32)
        operation.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
        operation.builtinOptions = schema.DequantizeOptionsT()
        return operation

    def pack(self) -> None:
        """Packs every large constant of every signature."""
        for subgraph in self.model.subgraphs:
            large = [
                i
                for i, tensor in enumerate(subgraph.tensors)
                if (values := float_data(self.model, tensor)) is not None
                and values.ndim >= 3
                and values.nbytes >= LARGE_BYTES
            ]
            subgraph.operators = [self.pack_tensor(subgraph, i) for i in large] + list(subgraph.operators)
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


def pack_constants(content: bytes) -> bytes:
    """The same TFLite model with its large float constants stored as int8, and with equal vectors stored once."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    ConstantPacker(model).pack()
    builder = SharingBuilder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
