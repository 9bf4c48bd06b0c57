"""Graphs that compute what depends on an optional input only if it is given."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinysam.calibration.arrays import Floats
from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.onnx_rewriter import drop_unread, put_nodes


def skip_unless_given(model: onnx.ModelProto, flag: str, result: str, otherwise: Floats) -> None:
    """Changes a graph in place: what only `result` needs becomes the branch of an `If`.

    Args:
        model: with a float input `flag` of one element.
        flag: 0 if the optional input is not given, else 1.
        result: float tensor that the input decides, inside the graph.
        otherwise: what `result` is where the flag is 0; may be one that broadcasts to it.

    Raises:
        CalibrationError: nothing in the graph makes `result`.
    """
    graph, lookup = model.graph, Graph(model)
    if result not in lookup.makers:
        raise CalibrationError(f"no operation of the graph makes {result}")
    inside = only_for(lookup, result)
    present, nothing = f"{flag}.present", f"{flag}.nothing"
    missing = helper.make_node("Identity", ["otherwise"], [result])
    branches = {
        "then_branch": branch(f"{result}.given", inside, result, lookup.constants),
        "else_branch": branch(
            f"{result}.missing", [missing], result, {"otherwise": numpy_helper.from_array(otherwise, "otherwise")}
        ),
    }
    choice = [
        helper.make_node("Greater", [flag, nothing], [present], present),
        helper.make_node("If", [present], [result], f"{result}.choice", **branches),
    ]
    removed = {node.output[0] for node in inside}
    put_nodes(graph, [*choice, *(node for node in graph.node if node.output[0] not in removed)])
    drop_unread(graph)
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), nothing))
    onnx.checker.check_model(model)


def branch(
    name: str, nodes: list[onnx.NodeProto], result: str, constants: Mapping[str, onnx.TensorProto]
) -> onnx.GraphProto:
    """One branch of an `If`, with constants of its own; other tensors are the graph's around it.

    Names of the graph around it may not be given twice, so all of the branch's own get its name in front.
    """
    made = {output for node in nodes for output in node.output}
    own = {tensor: constants[tensor] for node in nodes for tensor in node.input if tensor in constants}
    inner = {tensor: f"{name}.{tensor}" for tensor in (*own, *made)}
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    for node in copies:
        node.input[:] = [inner.get(tensor, tensor) for tensor in node.input]
        node.output[:] = [inner[tensor] for tensor in node.output]
    stored = [numpy_helper.from_array(numpy_helper.to_array(values), inner[tensor]) for tensor, values in own.items()]
    output = helper.make_tensor_value_info(inner[result], TensorProto.FLOAT, None)
    return helper.make_graph(copies, name, [], [output], stored)


def only_for(lookup: Graph, result: str) -> list[onnx.NodeProto]:
    """The nodes that nothing but one tensor needs, in order of execution."""
    inside = {result}
    for node in reversed(lookup.nodes):
        readers = [reader for tensor in node.output for reader in lookup.readers.get(tensor, [])]
        needed = not lookup.outputs.intersection(node.output) and readers
        if result in node.output or (needed and all(reader.output[0] in inside for reader in readers)):
            inside.add(node.output[0])
    return [node for node in lookup.nodes if node.output[0] in inside]
