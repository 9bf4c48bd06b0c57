"""TFLite files for `tinysam-bench`: a matrix product as a model, and the multiply-accumulates of a model.

Shapes are fixed: the operators of a file are read with the schema that LiteRT brings along.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tinysam.runtime.bench.limit import Job, matrix, product_precision
from tinysam.runtime.engines.tflite import Interpreter


def product_job(precision: str, threads: int, side: int) -> Job:
    """One product of (side, side) matrices."""
    interpreter = Interpreter(model_content=tflite_product(precision, side), num_threads=threads)
    interpreter.allocate_tensors()
    (left,) = interpreter.get_input_details()
    interpreter.set_tensor(left["index"], matrix(left["dtype"], side))
    invoke: Job = interpreter.invoke
    return invoke


def tflite_product(precision: str, side: int) -> bytes:
    """A TFLite file: a fully connected layer of (side, side) inputs."""
    is_float = product_precision(precision) == "fp32"
    kind = schema.TensorType.FLOAT32 if is_float else schema.TensorType.INT8
    model, graph, operator, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    empty, weights = schema.BufferT(), schema.BufferT()
    weights.data = matrix(np.float32 if is_float else np.int8, side).view(np.uint8).ravel()
    for name, buffer in (("left", 0), ("right", 1), ("out", 0)):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [side, side], kind, buffer
        if not is_float:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [1.0], [0]
        graph.tensors = [*(graph.tensors or []), tensor]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1 if is_float else 4
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, -1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph.inputs, graph.outputs, graph.operators = [0], [2], [operator]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [empty, weights]
    builder = flatbuffers.Builder(weights.data.size + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def count_macs(path: Path, signature: str | None, lengths: Mapping[str, int], values: Mapping[str, float]) -> int:
    """See `tinysam.runtime.bench.macs.count_macs`; there are no free axes."""
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.Model.GetRootAs(path.read_bytes())
    graph = model.Subgraphs(_subgraph(model, signature))
    total = 0
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if kind not in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "BATCH_MATMUL"):
            continue
        left, right = (graph.Tensors(operator.Inputs(place)).ShapeAsNumpy().tolist() for place in (0, 1))
        out = math.prod(graph.Tensors(operator.Outputs(0)).ShapeAsNumpy().tolist())
        if kind == "BATCH_MATMUL":
            options = schema.BatchMatMulOptions()
            options.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
            total += out * left[-2 if options.AdjX() else -1]
        else:
            # Weights: (outputs, inputs), (outputs, h, w, inputs), or (1, h, w, channels) of a depthwise convolution.
            outputs = right[-1] if kind == "DEPTHWISE_CONV_2D" else right[0]
            total += out * (math.prod(right) // outputs)
    return total


def _subgraph(model: Any, signature: str | None) -> int:
    known = {}
    for index in range(model.SignatureDefsLength()):
        definition = model.SignatureDefs(index)
        known[definition.SignatureKey().decode()] = int(definition.SubgraphIndex())
    if signature is None and len(known) <= 1:
        return next(iter(known.values()), 0)
    if signature not in known:
        raise ValueError(f"signature {signature!r}, expected one of {', '.join(sorted(known))}")
    return known[signature]
