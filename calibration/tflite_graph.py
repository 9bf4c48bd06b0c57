"""Reading a TFLite file: its linear operations, matched with those of the ONNX file it was made from.

The converter renames tensors but keeps weights bit for bit, so a weight identifies its operation in both files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from tinysam.calibration.arrays import Floats
from tinysam.calibration.onnx_graph import LinearNode

KINDS = {
    schema.BuiltinOperator.CONV_2D: "CONV_2D",
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: "DEPTHWISE_CONV_2D",
    schema.BuiltinOperator.FULLY_CONNECTED: "FULLY_CONNECTED",
}


@dataclass(frozen=True)
class TFLiteOperation:
    """A linear operation of a TFLite file and its twin in the ONNX file."""

    kind: str
    source: str
    """Name of the activation that it reads."""
    output: str
    relu: bool
    """Whether the operation ends with a ReLU, which is a node of its own in the ONNX file."""
    twin: LinearNode


def weight_key(weight: npt.NDArray[Any]) -> bytes:
    """Identifies a weight whose axes are (outputs, inputs, ...)."""
    return str(weight.shape).encode() + np.ascontiguousarray(weight, np.float32).tobytes()


def as_onnx(weight: Floats, kind: str) -> Floats:
    """A TFLite weight with ONNX's order of axes."""
    if kind == "CONV_2D":  # (outputs, height, width, inputs)
        return weight.transpose(0, 3, 1, 2)
    if kind == "DEPTHWISE_CONV_2D":  # (1, height, width, outputs)
        return weight.transpose(3, 0, 1, 2)
    return weight


def float_data(model: Any, tensor: Any) -> Floats | None:
    """Values of a stored float tensor, None for an activation."""
    data = model.buffers[tensor.buffer].data
    if data is None or tensor.type != schema.TensorType.FLOAT32:
        return None
    values: Floats = np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32).reshape(tensor.shape)
    return values


def linear_operations(path: Path, nodes: list[LinearNode]) -> Iterator[TFLiteOperation]:
    """The linear operations of all signatures that have a twin among `nodes`."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    twins = {weight_key(node.weight): node for node in nodes}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    for subgraph in model.subgraphs:
        for operation in subgraph.operators:
            kind = KINDS.get(codes[operation.opcodeIndex])
            if kind is None:
                continue
            source, stored = (subgraph.tensors[i] for i in operation.inputs[:2])
            weight = float_data(model, stored)
            twin = None if weight is None else twins.get(weight_key(as_onnx(weight, kind)))
            if twin is not None:
                output = subgraph.tensors[operation.outputs[0]]
                relu = operation.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.RELU
                yield TFLiteOperation(kind, source.name.decode(), output.name.decode(), relu, twin)
