"""Half precision: float operations of TFLite files in fp16, where the processor computes in it.

LiteRT computes the float operations of a file in fp16 if the file's metadata allows it and the processor can
(Cortex-A76 and later, every recent phone); elsewhere the same file computes in fp32.

1. Every tensor of the float graph has to stay far from the largest fp16 number on the calibration photographs
   (`check_range`), and so have the squares inside layer norms.
2. The graph is run with every result rounded to fp16 (`rounded_model`), for a judgement of its masks. Sums inside a
   matrix product are not rounded there; `make arm-half` judges the files where they are.
3. Weights are stored in fp16 (`store_half`), and an encoder's metadata allows the arithmetic (`allow_half`); so does
   an INT8 decoder's, in which there is nothing that XNNPACK refuses (`tinysam.calibration.tflite_half`).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from tinysam.calibration.arrays import Floats
from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.observers import observe_extremes
from tinysam.calibration.onnx_rewriter import put_nodes
from tinysam.calibration.tflite_constants import ConstantPacker, as_half
from tinysam.calibration.tflite_graph import float_data

LARGEST = 65504.0
"""Largest number in fp16."""
MARGIN = 2.0
"""Values on calibration photographs stay this many times below it."""
METADATA, ALLOWED = b"reduced_precision_support", b"fp16accfp16"
"""TensorFlow's lite/tools/optimize/reduced_precision_metadata.h: fp16 values, accumulated in fp16."""
SMALLEST_CONSTANT = 1024
"""Fewest elements of a constant that is stored in fp16, at the cost of a dequantize operation."""


def allow_half(model: Any) -> None:
    """Adds the metadata entry to a flatbuffer object."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(ALLOWED, np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = METADATA, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]


def store_half(model: Any) -> None:
    """Stores the weights of a float flatbuffer object in fp16, in place."""

    def chosen(subgraph: Any) -> list[int]:
        found = ((i, float_data(model, tensor)) for i, tensor in enumerate(subgraph.tensors))
        return [i for i, values in found if values is not None and values.size >= SMALLEST_CONSTANT]

    ConstantPacker(model, as_half).pack(chosen)


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Float results of a graph's nodes."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    made = [tensor for node in model.graph.node for tensor in node.output]
    return [tensor for tensor in made if kinds.get(tensor) == TensorProto.FLOAT]


def check_range(model: onnx.ModelProto, feeds: Iterable[dict[str, Floats]], part: str) -> float:
    """Largest value of a graph on real inputs, with those inside layer norms.

    Args:
        model: float graph.
        feeds: real inputs.
        part: name of the graph, for the message.

    Raises:
        CalibrationError: a parameter or a value is too large for fp16; the message names the layer.
    """
    limit = LARGEST / MARGIN
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size and float(np.abs(values).max()) > LARGEST:
            raise CalibrationError(f"fp16: {part} {tensor.name} holds {np.abs(values).max():.3g}; use fp32 or int8")
    steps = spelled_out(model)
    seen = observe_extremes(steps, float_tensors(steps), feeds)
    worst = 0.0
    for name, (low, high) in seen.items():
        value = max(abs(low), abs(high))
        if value > limit:
            raise CalibrationError(
                f"fp16: behind layer {layer_before(steps, name)} the {part} reaches {value:.3g} on the calibration "
                f"photographs; fp16 ends at {LARGEST:g} and a margin of {MARGIN:g} is asked for; use fp32 or int8"
            )
        worst = max(worst, value)
    return worst


def layer_before(model: onnx.ModelProto, tensor: str) -> str:
    """Name of the last module with parameters before a tensor."""
    makers = {output: node for node in model.graph.node for output in node.output}
    stored = {initializer.name for initializer in model.graph.initializer}
    while tensor in makers:
        node = makers[tensor]
        named = [name for name in node.input if name in stored and name.endswith(".weight")]
        if named:
            return str(named[0]).removesuffix(".weight")
        tensor = next((name for name in node.input if name in makers), "")
    return "input"


def rounded_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its float constants and all results of its nodes rounded to fp16; layer norms in steps."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(spelled_out(model))
    graph = rounded.graph
    outputs = {output.name for output in graph.output}
    wanted = set(float_tensors(rounded)) - outputs
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16).astype(np.float32), tensor.name))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for i, name in enumerate(node.output):
            if name in wanted:
                node.output[i] = f"{name}.exact"
                nodes.append(helper.make_node("Cast", [f"{name}.exact"], [f"{name}.half"], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    put_nodes(graph, nodes)
    del graph.value_info[:]
    return rounded


def spelled_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with layer norms as the converter writes them: mean, squared difference, reciprocal root, products."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), "norm.axis"))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "LayerNormalization":
            nodes.append(node)
            continue
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        own, (x, scale, *bias), y = f"{node.name}.norm", node.input, node.output[0]
        graph.initializer.append(numpy_helper.from_array(np.array(epsilon, np.float32), f"{own}.epsilon"))
        steps = [
            ("ReduceMean", [x, "norm.axis"], "mean"),
            ("Sub", [x, f"{own}.mean"], "centred"),
            ("Mul", [f"{own}.centred", f"{own}.centred"], "squares"),
            ("ReduceMean", [f"{own}.squares", "norm.axis"], "variance"),
            ("Add", [f"{own}.variance", f"{own}.epsilon"], "above"),
            ("Sqrt", [f"{own}.above"], "root"),
            ("Div", [f"{own}.centred", f"{own}.root"], "unit"),
            ("Mul", [f"{own}.unit", scale], "scaled"),
        ]
        nodes += [helper.make_node(kind, inputs, [f"{own}.{name}"]) for kind, inputs, name in steps]
        nodes.append(helper.make_node("Add", [f"{own}.scaled", *bias], [y]) if bias else identity(own, y))
    put_nodes(graph, nodes)
    return changed


def identity(own: str, output: str) -> onnx.NodeProto:
    """A layer norm without shift ends with its scale."""
    return helper.make_node("Identity", [f"{own}.scaled"], [output])
