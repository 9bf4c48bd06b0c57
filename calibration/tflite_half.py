"""Operations of a TFLite file in the forms that XNNPACK computes in fp16.

LiteRT hands a graph to XNNPACK, which computes it in fp16 where the file allows it and the processor can. Three forms
stop it, so they become others (LiteRT 2.3, counted on a Cortex-A76 by `make arm-cost`):

* A FULLY_CONNECTED layer with int8 weights and float inputs gives fp32, and so does everything behind it. As a
  convolution of rows it gives fp16, and takes fewer instructions in fp32, too. A convolution of single cells would be
  turned into the layer; a stride of 2 along an axis of length 1 prevents that and changes nothing else.
  Its inputs are rounded to int8 with one range for all rows of a call, or of a row of a map, not one for each.
* A BATCH_MATMUL with a constant is refused, and the file does not load. Those of a decoder are one matrix for each
  head: a grouped convolution with int8 weights per channel, whose inputs are rounded likewise.
* So is a BATCH_MATMUL whose first operand is to be transposed. It gets an operation of its own for that.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tinysam.calibration.arrays import Floats
from tinysam.calibration.qparams import quantize_weight, weight_scales
from tinysam.calibration.tflite_graph import float_data
from tinysam.calibration.tflite_writer import SubgraphWriter

Kind = schema.BuiltinOperator
STRIDE = 2
"""Of the width, which is 1."""
HEADS_INSIDE = (0, 2, 1, 3)
"""Order of axes from (1, heads, T, dim) to (1, T, heads, dim), and back."""
HYBRID_CONVOLUTION = 5
"""Version of CONV_2D that has int8 weights per channel and float inputs."""


def prefer_half(model: Any) -> None:
    """Rewrites every signature of a quantized model in place; the results stay the same but for rounding."""
    weights: dict[int, HeadWeights] = {}
    for subgraph in model.subgraphs:
        HalfForms(model, subgraph, weights).rewrite()
    for buffer in weights:
        model.buffers[buffer].data = None


@dataclass(frozen=True)
class HeadWeights:
    """One matrix for each head, as a grouped convolution's."""

    values: int
    """Index of the buffer with int8 (heads * outputs, 1, 1, inputs)."""
    zeros: int
    """Of the buffer with as many float zeros."""
    scales: Floats
    """(heads * outputs,)"""


class HalfForms(SubgraphWriter):
    """Rewrites one signature.

    Args:
        model: flatbuffer object.
        subgraph: one of its own.
        weights: buffer of a constant -> what became of it; signatures share both.
    """

    def __init__(self, model: Any, subgraph: Any, weights: dict[int, HeadWeights]) -> None:
        super().__init__(model, subgraph)
        self.weights = weights

    def rewrite(self) -> None:
        """Goes through the operations in their order."""
        for operation in self.subgraph.operators:
            kind = self.kind(operation)
            if self.is_layer(operation, kind) and self.is_hybrid(operation):
                self.add_layer(operation)
            elif kind == Kind.BATCH_MATMUL and self.is_per_head(operation):
                self.add_heads(operation)
            elif kind == Kind.BATCH_MATMUL and operation.builtinOptions.adjX:
                self.add_turned(operation)
            else:
                self.operations.append(operation)
        self.subgraph.operators = self.operations

    def is_layer(self, operation: Any, kind: int) -> bool:
        """Whether an operation gives each cell, or row, what a linear layer makes of it alone."""
        if kind != Kind.CONV_2D:
            return bool(kind == Kind.FULLY_CONNECTED)
        options, (_, height, width, _) = operation.builtinOptions, self.shape(operation.inputs[1])
        return bool(height == width == options.strideH == options.strideW == 1)

    def is_hybrid(self, operation: Any) -> bool:
        """Whether a layer has int8 weights and float inputs."""
        source, weight = (self.subgraph.tensors[i].type for i in operation.inputs[:2])
        return bool(source == schema.TensorType.FLOAT32 and weight == schema.TensorType.INT8)

    def is_per_head(self, product: Any) -> bool:
        """Whether a product has a constant matrix for each head, (1, heads, inputs, outputs)."""
        tensor = self.subgraph.tensors[product.inputs[1]]
        if len(tensor.shape) != 4 or tensor.shape[0] != 1:
            return False
        return tensor.buffer in self.weights or float_data(self.model, tensor) is not None

    def add_layer(self, layer: Any) -> None:
        """A hybrid layer, or convolution of single cells, as a convolution of rows.

        Each row of a map is an image of its own: it gets its own range, and threads share the rounding.
        """
        source, weight, output = layer.inputs[0], self.subgraph.tensors[layer.inputs[1]], layer.outputs[0]
        weight.shape = np.array([weight.shape[0], 1, 1, weight.shape[-1]], np.int32)
        shape = self.shape(source)
        height = shape[1] if len(shape) == 4 else 1
        rows = self.reshaped(source, (height, -1, 1, weight.shape[-1]))
        bias = layer.inputs[2] if layer.inputs[2] >= 0 else self.no_bias(output, weight.shape[0])
        made = self.convolution(rows, layer.inputs[1], bias, layer.builtinOptions.fusedActivationFunction)
        self.emit(Kind.RESHAPE, [made, self.constant(self.shape(output))], output)

    def no_bias(self, output: int, length: int) -> int:
        """Zeros: a convolution with int8 weights needs a bias, which the converter leaves out where it is zero."""
        zeros = self.buffer(np.zeros(length, np.float32))
        return self.tensor(output, (length,), schema.TensorType.FLOAT32, zeros)

    def add_heads(self, product: Any) -> None:
        """(1, heads, T, inputs) by (1, heads, inputs, outputs) as a grouped convolution of T cells."""
        source, output = product.inputs[0], product.outputs[0]
        _, heads, tokens, inputs = self.shape(source)
        outputs = self.shape(output)[3]
        stored = self.head_weights(self.subgraph.tensors[product.inputs[1]])
        weight = self.tensor(output, (heads * outputs, 1, 1, inputs), schema.TensorType.INT8, stored.values)
        quantization = schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = stored.scales, np.zeros(len(stored.scales), np.int64)
        self.subgraph.tensors[weight].quantization = quantization
        bias = self.tensor(output, (heads * outputs,), schema.TensorType.FLOAT32, stored.zeros)
        turned = self.reshaped(self.turned(source, HEADS_INSIDE), (1, tokens, 1, heads * inputs))
        made = self.convolution(turned, weight, bias, schema.ActivationFunctionType.NONE)
        apart = self.reshaped(made, (1, tokens, heads, outputs))
        self.emit(Kind.TRANSPOSE, [apart, self.constant(HEADS_INSIDE)], output)

    def head_weights(self, tensor: Any) -> HeadWeights:
        """What becomes of a constant (1, heads, inputs, outputs)."""
        if tensor.buffer not in self.weights:
            values = float_data(self.model, tensor)
            assert values is not None
            rows = values[0].transpose(0, 2, 1).reshape(-1, values.shape[2])
            scales = weight_scales(rows, 0)
            zeros = self.buffer(np.zeros(len(rows), np.float32))
            self.weights[tensor.buffer] = HeadWeights(self.buffer(quantize_weight(rows, scales, 0)), zeros, scales)
        return self.weights[tensor.buffer]

    def add_turned(self, product: Any) -> None:
        """A matrix product whose first operand is transposed before."""
        axes = [*range(len(self.shape(product.inputs[0])))]
        turned = self.turned(product.inputs[0], (*axes[:-2], axes[-1], axes[-2]))
        product.inputs = np.array([turned, product.inputs[1]], np.int32)
        product.builtinOptions.adjX = False
        self.operations.append(product)

    def convolution(self, source: int, weight: int, bias: int, activation: int) -> int:
        """Of (images, rows, 1, inputs) by one cell: (images, rows, 1, outputs)."""
        options = schema.Conv2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideH, options.strideW, options.dilationHFactor, options.dilationWFactor = 1, STRIDE, 1, 1
        options.fusedActivationFunction = activation
        made = self.tensor(source, (*self.shape(source)[:3], self.shape(weight)[0]))
        self.emit(Kind.CONV_2D, [source, weight, bias], made, HYBRID_CONVOLUTION)
        self.operations[-1].builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
        self.operations[-1].builtinOptions = options
        return made

    def reshaped(self, source: int, shape: tuple[int, ...]) -> int:
        """The same values in another shape, in which one length may be -1."""
        free = math.prod(self.shape(source)) // abs(math.prod(shape))
        lengths = tuple(free if length == -1 else length for length in shape)
        made = self.tensor(source, lengths)
        self.emit(Kind.RESHAPE, [source, self.constant(lengths)], made)
        return made

    def turned(self, source: int, order: tuple[int, ...]) -> int:
        """The same values with their axes in another order."""
        made = self.tensor(source, tuple(self.shape(source)[axis] for axis in order))
        self.emit(Kind.TRANSPOSE, [source, self.constant(order)], made)
        return made

    def constant(self, values: tuple[int, ...]) -> int:
        """A new int32 constant."""
        return self.new_constant(self.name(0), values)

    def tensor(self, like: int, shape: tuple[int, ...], kind: int = schema.TensorType.FLOAT32, buffer: int = 0) -> int:
        """A new tensor, named after another; without a buffer a float activation."""
        return self.new_tensor(self.name(like), shape, kind, buffer)

    def name(self, like: int) -> bytes:
        """For the next new tensor, after another."""
        name: bytes = self.subgraph.tensors[like].name + f";{len(self.subgraph.tensors)}".encode()
        return name
