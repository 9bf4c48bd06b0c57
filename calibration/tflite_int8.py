"""Float TFLite file and ranges to an INT8 TFLite file, through ai-edge-quantizer.

Convolutions and fully connected layers become integer, with int8 weights per channel, and so do the GELU (a table), the
padding and the addition between them. Matrix products of activations, softmax and layer norms stay float: their integer
versions run outside XNNPACK as scalar code, and a graph quantized throughout was slower than the float one.
"""

import logging
import re
import warnings
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tinysam.calibration.arrays import floats
from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.operations import TFLITE
from tinysam.calibration.qparams import Range
from tinysam.calibration.tensor_ranges import TensorRanges
from tinysam.calibration.tflite_graph import KINDS, LINEAR, MOVES, TFLiteOperation, integer_operations, layers_of
from tinysam.calibration.tflite_writer import kind_of


def chosen_operations(source: bytes, graph: Graph, keep_float: frozenset[str]) -> list[TFLiteOperation]:
    """Operations that become integer: those whose twins in the ONNX graph do, and what moves values between them."""
    nodes = graph.integer_nodes(keep_float, TFLITE)
    integer = {tensor for node in nodes for tensor in node.output}
    known = set(graph.activations(nodes))
    return [
        operation
        for operation in integer_operations(source, graph)
        if (operation.activations[operation.output] in (known if operation.kind in MOVES else integer))
        and operation.node not in keep_float
    ]


def recipe(operations: list[TFLiteOperation], dynamic: list[TFLiteOperation]) -> Any:
    """ai-edge-quantizer's recipe: static int8 for exactly these operations, int8 weights for the `dynamic` ones."""
    from ai_edge_quantizer import qtyping, recipe_manager

    manager = recipe_manager.RecipeManager()
    for operation in dynamic:
        manager.add_dynamic_config(
            regex=f"^{re.escape(operation.output)};?$",
            operation_name=qtyping.TFLOperationName[operation.kind],
            num_bits=8,
        )
    for operation in operations:
        manager.add_static_config(
            regex=f"^{re.escape(operation.output)};?$",
            operation_name=qtyping.TFLOperationName[operation.kind],
            activation_num_bits=8,
            weight_num_bits=8,
        )
    return manager.get_quantization_recipe()


def statistics(operations: list[TFLiteOperation], ranges: dict[str, Range]) -> dict[str, Any]:
    """ai-edge-quantizer's calibration result with our ranges, tensor by tensor."""
    found: dict[str, Any] = {}
    for operation in operations:
        for tensor, twin in operation.activations.items():
            span = ranges[twin]
            if operation.relu and tensor == operation.output:
                span = Range(0.0, max(span.high, 0.0))
            found[tensor] = {"min": floats([[span.low]]), "max": floats([[span.high]])}
    return found


def quantize_tflite(
    source: bytes,
    graph: Graph,
    found: TensorRanges,
    keep_float: frozenset[str] = frozenset(),
    dynamic: frozenset[str] = frozenset(),
    dynamic_signature: str = "",
) -> tuple[bytes, dict[str, Any]]:
    """The INT8 version of a float TFLite file, and what the manifest says of it.

    Args:
        source: float file.
        graph: ONNX graph with the same parameters.
        found: ranges of that graph's activations.
        keep_float: ONNX names of nodes that stay float.
        dynamic: those of them whose weights are int8 nevertheless: LiteRT quantizes their inputs by their own range
            when it runs, and gives float results.
        dynamic_signature: a signature all of whose linear layers are like that; the graph need not have them.

    Raises:
        CalibrationError: no operation of the file is known, or the quantizer refused the graph.
    """
    from ai_edge_quantizer import quantizer

    operations = chosen_operations(source, graph, keep_float)
    weights = [operation for operation in integer_operations(source, graph) if operation.node in dynamic]
    if dynamic_signature:
        weights += layers_of(source, dynamic_signature)
    if not operations and not weights:
        raise CalibrationError("TFLite: no operation matches the ONNX graph; export both again")
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantizing = quantizer.Quantizer(bytearray(source), recipe(operations, weights))
            result = quantizing.quantize(statistics(operations, found.ranges))
    except (ValueError, RuntimeError, KeyError) as error:
        raise CalibrationError(f"TFLite: ai-edge-quantizer refused the graph: {error}") from error
    finally:
        logging.disable(previous)
    if result.quantized_model is None:
        raise CalibrationError("TFLite: ai-edge-quantizer returned no model")
    facts = {
        "scheme": f"{'static' if operations else 'dynamic'}, int8 weights per channel, int8 activations",
        "ranges": found.method,
        "float_nodes": sorted(keep_float),
    }
    return bytes(result.quantized_model), facts


def operations_of(model: Any) -> dict[str, list[str]]:
    """Kinds of operations in an INT8 file, for the manifest: computed in integers, and with int8 weights alone.

    Args:
        model: flatbuffer object of the file as it is published.
    """
    integer, dynamic = set(), set()
    for subgraph in model.subgraphs:
        for operation in subgraph.operators:
            kind = KINDS.get(kind_of(model.operatorCodes[operation.opcodeIndex]))
            if kind is None or kind in MOVES:
                continue
            types = [subgraph.tensors[index].type for index in (*operation.inputs[:2], operation.outputs[0])]
            if types[0] == types[-1] == schema.TensorType.INT8:
                integer.add(kind)
            elif kind in LINEAR and types[1] == schema.TensorType.INT8:
                dynamic.add(kind)
    return {"integer_operations": sorted(integer), "dynamic_operations": sorted(dynamic)}
