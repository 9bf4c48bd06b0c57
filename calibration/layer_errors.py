"""Signal-to-noise ratio of every integer layer: how far the INT8 graph has drifted from the float one by then."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from tinysam.calibration.arrays import Floats
from tinysam.calibration.observers import quiet_session
from tinysam.calibration.onnx_graph import Graph

COLUMN = ".column"
"""Behind the name of a linear layer's result that is a map of one column, (1, channels, rows, 1), and no longer rows:
see `tinysam.calibration.onnx_convolutions`."""


@dataclass(frozen=True)
class LayerError:
    """One layer of the graph."""

    name: str
    operation: str
    snr_db: float
    """Power of the float output over the power of its difference to the INT8 graph's, in decibels."""


def with_outputs(source: onnx.ModelProto, tensors: list[str]) -> ort.InferenceSession:
    """A session that returns these tensors of a graph."""
    model = onnx.ModelProto()
    model.CopyFrom(source)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    return quiet_session(model)


def layer_errors(
    source: onnx.ModelProto, quantized: onnx.ModelProto, feeds: Iterable[dict[str, Floats]]
) -> list[LayerError]:
    """Compares the outputs of all convolutions and linear layers, in order of execution, summed over the feeds.

    Args:
        source: float graph.
        quantized: INT8 graph made from it; its tensors have the same names.
        feeds: inputs by name.
    """
    graph = Graph(source)
    nodes = graph.linear_nodes()
    tensors = [node.output for node in nodes]
    made = {tensor for node in quantized.graph.node for tensor in node.output}
    exact = with_outputs(source, tensors)
    rounded = with_outputs(quantized, [name if name in made else f"{name}{COLUMN}" for name in tensors])
    signal, noise = np.zeros(len(nodes)), np.zeros(len(nodes))
    for feed in feeds:
        for i, (want, have) in enumerate(zip(exact.run(None, feed), rounded.run(None, feed), strict=True)):
            rows = have if tensors[i] in made else have[0, ..., 0].T
            signal[i] += float(np.square(want, dtype=np.float64).sum())
            noise[i] += float(np.square(rows - want, dtype=np.float64).sum())
    ratios = 10 * np.log10(np.maximum(signal, 1e-30) / np.maximum(noise, 1e-30))
    makers = graph.makers
    return [
        LayerError(node.name, makers[node.output].op_type, round(float(ratio), 2))
        for node, ratio in zip(nodes, ratios, strict=True)
    ]
