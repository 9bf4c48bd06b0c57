"""The rate of a large matrix product on this machine: what an encoder can at best come near to.

A square product of 2048 rows is large enough that nothing but multiplications counts, and small enough for a Raspberry
Pi. It is measured in every engine that is installed, with the threads of the case; the fastest is the limit. The models
for it are written here byte by byte, since the runtime needs no package that writes models.
"""

import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tinysam.runtime import engines
from tinysam.runtime.engines.known_bugs import ARM_MACHINES

SIDE = 2048
GMAC = SIDE**3 / 1e9
RUNS = 2
_INT32 = 6
"""ONNX's number of the type that integer products have."""
PRECISIONS = ("fp32", "int8")

Job = Callable[[], Any]


def product_jobs(precision: str, threads: int, side: int = SIDE) -> dict[str, Job]:
    """One product of (side, side) matrices for each installed engine, by its name."""
    makers = {"onnx": _onnx_job, "tflite": _tflite_job}
    return {name: make(precision, threads, side) for name, make in makers.items() if engines.installed(name)}


def product_rate(precision: str, threads: int, side: int = SIDE) -> float:
    """GMAC per second of the fastest engine, best of a few runs; 0 if no engine is installed."""
    rate = 0.0
    for job in product_jobs(precision, threads, side).values():
        job()
        rate = max(rate, side**3 / 1e9 / min(_seconds(job) for _ in range(RUNS)))
    return rate


def _seconds(job: Job) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _onnx_job(precision: str, threads: int, side: int) -> Job:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(onnx_product(precision, side), options, providers=["CPUExecutionProvider"])
    left = matrix(left_type(precision), side)
    return partial(session.run, None, {"left": left})


def left_type(precision: str) -> type[np.generic]:
    """What the activations of INT8 files are fastest as: int8 on ARM, uint8 on x86."""
    if precision == "fp32":
        return np.float32
    return np.int8 if platform.machine() in ARM_MACHINES else np.uint8


def matrix(kind: type[np.generic], side: int) -> np.ndarray[Any, Any]:
    """(side, side) whole numbers, always the same."""
    random = np.random.default_rng(0)
    low, high = (0, 255) if kind is np.uint8 else (-127, 127)
    return random.integers(low, high, (side, side)).astype(kind)


def onnx_product(precision: str, side: int) -> bytes:
    """An ONNX file: `left` (side, side) times a constant matrix."""
    kinds = {np.float32: 1, np.uint8: 2, np.int8: 3}
    left, right = left_type(precision), np.float32 if precision == "fp32" else np.int8
    name = "MatMul" if precision == "fp32" else "MatMulInteger"
    node = _text(1, "left") + _text(1, "right") + _text(2, "out") + _text(4, name)
    weights = (
        _number(1, side) * 2 + _number(2, kinds[right]) + _text(8, "right") + _field(9, matrix(right, side).tobytes())
    )
    graph = _field(1, node) + _text(2, "product") + _field(5, weights)
    graph += _field(11, _tensor("left", kinds[left], side)) + _field(
        12, _tensor("out", 1 if precision == "fp32" else 6, side)
    )
    return _number(1, 8) + _field(7, graph) + _field(8, _text(1, "") + _number(2, 13))


def _tensor(name: str, kind: int, side: int) -> bytes:
    """A protocol buffer ValueInfoProto."""
    shape = _field(1, _number(1, side)) * 2
    return _text(1, name) + _field(2, _field(1, _number(1, kind) + _field(2, shape)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _field(field, text.encode())


def _tflite_job(precision: str, threads: int, side: int) -> Job:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=tflite_product(precision, side), num_threads=threads)
    interpreter.allocate_tensors()
    left = matrix(np.float32 if precision == "fp32" else np.int8, side)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], left)
    invoke: Job = interpreter.invoke
    return invoke


def tflite_product(precision: str, side: int) -> bytes:
    """A TFLite file: a fully connected layer of (side, side) inputs."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    is_float = precision == "fp32"
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
