"""INT8 encoders that take the photograph's pixels as they are: normalization moves into the first convolution.

The first convolution stays float and reads whole numbers from 0 to 255, so that nothing of the photograph is rounded.
A fourth channel, 1 on the photograph and 0 on the padding, carries -mean / std: padding stays exactly the zero of
normalized space, which is no whole number of a pixel.
"""

from typing import Any

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.blocks import IMAGE
from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.tflite_graph import KINDS, float_data
from tinysam.calibration.tflite_writer import kind_of

CHANNELS = 4


def pixel_weight(weight: Floats, mean: tuple[float, ...], std: tuple[float, ...]) -> Floats:
    """(outputs, 4, height, width) weight on pixels of a (outputs, 3, height, width) weight on normalized images."""
    wide = weight.astype(np.float64) / np.array(std)[:, None, None]
    offset = -(wide * np.array(mean)[:, None, None]).sum(1, keepdims=True)
    return floats(np.concatenate([wide, offset], axis=1))


def take_pixels_onnx(model: onnx.ModelProto, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Changes an encoder graph in place: its image is uint8 (1, 4, S, S).

    Raises:
        CalibrationError: the image does not go into one float convolution.
    """
    graph = model.graph
    readers = [node for node in graph.node if IMAGE in node.input]
    stored = {tensor.name: tensor for tensor in graph.initializer}
    if len(readers) != 1 or readers[0].op_type != "Conv" or readers[0].input[1] not in stored:
        raise CalibrationError("the image is read by something else than one float convolution")
    (convolution,) = readers
    tensor = stored[convolution.input[1]]
    tensor.CopyFrom(numpy_helper.from_array(pixel_weight(numpy_helper.to_array(tensor), mean, std), tensor.name))
    (image,) = (value for value in graph.input if value.name == IMAGE)
    image.type.tensor_type.elem_type = TensorProto.UINT8
    image.type.tensor_type.shape.dim[1].dim_value = CHANNELS
    convolution.input[0] = f"{IMAGE}.float"
    graph.node.insert(0, helper.make_node("Cast", [IMAGE], [convolution.input[0]], "pixels", to=TensorProto.FLOAT))
    onnx.checker.check_model(model)


def take_pixels_tflite(model: Any, mean: tuple[float, ...], std: tuple[float, ...], code: int) -> None:
    """Changes an encoder's flatbuffer object in place: its image is uint8 (1, S, S, 4).

    Args:
        model: flatbuffer object with one signature.
        mean: of the channels, in pixels.
        std: of the channels, in pixels.
        code: index of the DEQUANTIZE operation code.

    Raises:
        CalibrationError: the image does not go into one float convolution.
    """
    (subgraph,) = model.subgraphs
    (image,) = subgraph.inputs
    codes = [kind_of(code) for code in model.operatorCodes]
    pixels = schema.TensorT()
    pixels.name, pixels.shape = subgraph.tensors[image].name + b";pixels", np.array(subgraph.tensors[image].shape)
    pixels.shape[-1] = CHANNELS
    pixels.buffer, pixels.type = 0, schema.TensorType.UINT8
    pixels.quantization = schema.QuantizationParametersT()
    pixels.quantization.scale, pixels.quantization.zeroPoint = [1.0], [0]
    subgraph.tensors.append(pixels)
    place = image
    while True:
        widened = subgraph.tensors[place]
        widened.shape = np.array([*widened.shape[:-1], CHANNELS], np.int32)
        readers = [op for op in subgraph.operators if place in op.inputs]
        kind = KINDS.get(codes[readers[0].opcodeIndex]) if len(readers) == 1 else None
        if kind != "PAD":
            break
        place = readers[0].outputs[0]
    weight = subgraph.tensors[readers[0].inputs[1]] if kind == "CONV_2D" else None
    values = None if weight is None else float_data(model, weight)
    if weight is None or values is None:
        raise CalibrationError("the image is read by something else than one float convolution")
    wide = pixel_weight(values.transpose(0, 3, 1, 2), mean, std).transpose(0, 2, 3, 1)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(wide).tobytes(), np.uint8)
    model.buffers.append(buffer)
    weight.buffer, weight.shape = len(model.buffers) - 1, np.array(wide.shape, np.int32)
    operation = schema.OperatorT()
    operation.opcodeIndex = code
    operation.inputs, operation.outputs = np.array([len(subgraph.tensors) - 1], np.int32), np.array([image], np.int32)
    operation.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operation.builtinOptions = schema.DequantizeOptionsT()
    subgraph.operators.insert(0, operation)
    subgraph.inputs = np.array([len(subgraph.tensors) - 1], np.int32)
    for signature in model.signatureDefs:
        for entry in signature.inputs:
            if entry.tensorIndex == image:
                entry.tensorIndex = len(subgraph.tensors) - 1
