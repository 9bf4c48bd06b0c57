"""Inputs of linear layers multiplied by a factor per channel, where no layer before them can take the factor in.

`tinysam.calibration.equalization` moves factors between layers at no cost. GELU lets none pass, and neither does a
tensor that others read as it is. Where one range for all channels costs masks, a product of its own takes their place
(Xiao et al. 2022, arXiv:2211.10438, without the layer that takes the factors in). For ONNX files only: LiteRT rounds
these inputs when it runs.

1. Observe the equalized float graph: largest value of every channel that goes into the layers of `SPREAD`.
2. Choose factors as for a pair (`find_factors`).
3. Multiply the input and divide the columns of the weight (`spread`). Float files stay as they are.

Cells of the decoder have a few channels that are six to eight times as large as the median one. They cannot be made
smaller before: the position encoding is added to them.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.equalization import FLATNESS, factors, pattern
from tinysam.calibration.observers import observe_channels
from tinysam.calibration.onnx_graph import Graph, LinearNode
from tinysam.calibration.onnx_rewriter import put_nodes

SPREAD = ("decoder.upscaling.first", "decoder.upscaling.second")
"""Linear layers whose input gets factors of its own."""

LARGEST_FACTOR = 2.0**126
"""Factors stay within this and its inverse: float32 holds both."""
TOGETHER = 1024
"""Values that ONNX Runtime multiplies in one go. A grid has an even side and 256 values for each cell: all divide."""

Factors = Mapping[str, Floats]
"""Weight of a layer -> (inputs,) what its input is multiplied by."""


def spread_layers(graph: Graph) -> list[LinearNode]:
    """The layers of `SPREAD` in a graph."""
    return [node for node in graph.linear_nodes() if any(pattern(name).fullmatch(node.module) for name in SPREAD)]


def find_factors(model: onnx.ModelProto, feeds: Iterable[dict[str, Floats]]) -> dict[str, Floats]:
    """Factors of every layer of `SPREAD` in an equalized float graph.

    Raises:
        CalibrationError: no feeds, or values that are not finite.
    """
    layers = spread_layers(Graph(model))
    if not layers:
        return {}
    seen = observe_channels(model, {layer.source: -1 for layer in layers}, feeds)
    found = {}
    for layer in layers:
        ranges = np.abs(np.stack(seen[layer.source]).astype(np.float64)).max(0)
        columns = np.abs(layer.weight.astype(np.float64)).max(0)
        wanted = factors(ranges, columns, FLATNESS)
        found[layer.parameter] = floats(np.clip(wanted, 1 / LARGEST_FACTOR, LARGEST_FACTOR))
    return found


def spread(model: onnx.ModelProto, chosen: Factors) -> onnx.ModelProto:
    """The same function with a product before each of these layers; the graph itself if there are none."""
    if not chosen:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph, nodes = changed.graph, []
    for tensor in graph.initializer:
        if tensor.name in chosen:
            weight = floats(numpy_helper.to_array(tensor) / chosen[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    for node in graph.node:
        if node.op_type == "Gemm" and node.input[1] in chosen:
            own, values = node.input[1], chosen[node.input[1]]
            wide = np.tile(values, max(1, TOGETHER // len(values)))
            constants = {"factors": wide, "wide": np.array([-1, len(wide)]), "narrow": np.array([-1, len(values)])}
            graph.initializer.extend(
                numpy_helper.from_array(value, f"{own}.{name}") for name, value in constants.items()
            )
            steps = (("Reshape", "wide", "rows"), ("Mul", "factors", "product"), ("Reshape", "narrow", "input"))
            for kind, constant, output in steps:
                nodes.append(helper.make_node(kind, [node.input[0], f"{own}.{constant}"], [f"{own}.{output}"]))
                nodes[-1].name = node.input[0] = f"{own}.{output}"
        nodes.append(node)
    put_nodes(graph, nodes)
    return changed
