"""Float files with the search's limits worked into their weights, from which either engine quantizes.

A weight cut off at its limit makes every quantizer choose the scale that was searched for: largest value / 127.
"""

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.tensor_ranges import TensorRanges
from tinysam.calibration.tflite_graph import LINEAR, SubgraphMatcher, float_data

CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
"""Output-channel axis of the weight in TFLite's order."""


def clip_channels(weight: Floats, limits: Floats, axis: int) -> Floats:
    """A weight cut off at the limits of its output channels."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    bound = limits.reshape(shape)
    return floats(np.clip(weight, -bound, bound))


def tune_onnx(source: Path, destination: Path, found: TensorRanges) -> None:
    """Writes an ONNX file with limited weights."""
    model = onnx.load(source)
    values = {
        node.parameter: clip_channels(node.weight, found.weight_limits[node.parameter], 0)
        for node in Graph(model).linear_nodes()
        if node.parameter in found.weight_limits
    }
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, array in values.items():
        stored[name].CopyFrom(numpy_helper.from_array(floats(array), name))
    onnx.save(model, destination)


def limited_buffers(model: Any, graph: Graph, found: TensorRanges) -> dict[int, Floats]:
    """Buffer -> its limited weight; signatures share buffers, so each is there once."""
    values: dict[int, Floats] = {}
    for subgraph in model.subgraphs:
        matcher = SubgraphMatcher(model, subgraph, graph)
        for operation, kind in matcher.kinds():
            twin = matcher.twin(operation, kind) if kind in LINEAR else None
            if twin is None or kind is None or twin.parameter not in found.weight_limits:
                continue
            tensor = subgraph.tensors[operation.inputs[1]]
            weight = float_data(model, tensor)
            assert weight is not None
            values[tensor.buffer] = clip_channels(weight, found.weight_limits[twin.parameter], CHANNEL_AXIS[kind])
    return values


def tune_tflite(source: Path, destination: Path, graph: Graph, found: TensorRanges) -> None:
    """Writes a TFLite file with limited weights; `graph` is the float ONNX file it was made from."""
    content = source.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer, values in limited_buffers(model, graph, found).items():
        model.buffers[buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    destination.write_bytes(bytes(builder.Output()))
