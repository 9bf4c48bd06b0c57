"""The decoder in the forms that XNNPACK computes in fp16."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tinysam.calibration.tflite_constants import to_bytes
from tinysam.calibration.tflite_half import prefer_half
from tinysam.calibration.tflite_writer import SubgraphWriter
from tinysam.runtime.labels import PADDING, POSITIVE

KINDS = {code: kind for kind, code in vars(schema.BuiltinOperator).items() if not kind.startswith("_")}
CLICK = "decode_1x2"


def read(content: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(content, 0)


def refused(model: Any, subgraph: Any) -> Counter[str]:
    """Operations that keep a graph out of fp16."""
    found: Counter[str] = Counter()
    fixed = {i for i, tensor in enumerate(subgraph.tensors) if model.buffers[tensor.buffer].data is not None}
    for operation in subgraph.operators:
        kind = KINDS[model.operatorCodes[operation.opcodeIndex].builtinCode]
        if kind == "DEQUANTIZE":
            fixed |= {operation.outputs[0]} if operation.inputs[0] in fixed else set()
        elif kind == "BATCH_MATMUL":
            found["constant"] += len(fixed & set(operation.inputs))
            found["turned"] += operation.builtinOptions.adjX
        elif kind in ("GATHER", "EQUAL", "GREATER_EQUAL", "CAST"):
            found[kind] += 1
        elif kind == "FULLY_CONNECTED":
            source, weight = (subgraph.tensors[i].type for i in operation.inputs[:2])
            found["hybrid"] += (source, weight) == (schema.TensorType.FLOAT32, schema.TensorType.INT8)
    return +found


def decode(content: bytes, resolver: Any = OpResolverType.AUTO) -> np.ndarray:
    runner = Interpreter(model_content=content, experimental_op_resolver_type=resolver).get_signature_runner(CLICK)
    random = np.random.default_rng(0)
    inputs = {
        name: 0.3 * random.standard_normal(detail["shape"]).astype(np.float32)
        for name, detail in sorted(runner.get_input_details().items())
    }
    inputs["point_coords"][0, 0], inputs["point_labels"][0] = (200, 150), (POSITIVE, PADDING)
    inputs["has_mask_input"][:] = 0
    masks: np.ndarray = runner(**inputs)["low_res_masks"]
    return masks


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="module")
def plain(artifacts_dir: Path) -> bytes:
    return (artifacts_dir / "decoder.fp32.tflite").read_bytes()


@pytest.fixture(scope="module")
def expected(plain: bytes) -> np.ndarray:
    return decode(plain)


def test_products_that_xnnpack_refuses_become_others_with_the_same_results(plain: bytes, expected: np.ndarray) -> None:
    model = read(plain)
    before = [refused(model, subgraph) for subgraph in model.subgraphs]
    prefer_half(model)
    content = to_bytes(model)
    changed = read(content)
    assert {"constant": 10, "turned": 2} in before
    assert not any(refused(changed, subgraph) for subgraph in changed.subgraphs)
    assert len(content) < len(plain)
    # one scale for all inputs of a call and one for each output, 8 bits each: a step is 1/127 of the largest value
    assert 1e-5 < error(decode(content), expected) < 2 / 127


def test_nothing_in_the_int8_decoder_stops_fp16(artifacts_dir: Path, expected: np.ndarray) -> None:
    content = (artifacts_dir / "decoder.int8.tflite").read_bytes()
    model = read(content)
    assert not any(refused(model, subgraph) for subgraph in model.subgraphs)
    assert 1e-5 < error(decode(content), expected) < 0.04


def test_a_photograph_is_projected_with_int8_weights(artifacts_dir: Path) -> None:
    model = read((artifacts_dir / "decoder.int8.tflite").read_bytes())
    (index,) = (one.subgraphIndex for one in model.signatureDefs if one.signatureKey == b"prepare")
    subgraph = model.subgraphs[index]
    layers = [op for op in subgraph.operators if KINDS[model.operatorCodes[op.opcodeIndex].builtinCode] == "CONV_2D"]
    weights = [subgraph.tensors[layer.inputs[1]] for layer in layers]
    assert [(weight.type, list(weight.shape)) for weight in weights] == [(schema.TensorType.INT8, [128, 1, 1, 256])] * 3


def test_bottlenecks_have_int8_weights_between_float_maps(artifacts_dir: Path) -> None:
    model = read((artifacts_dir / "encoder.int8.tflite").read_bytes())
    (subgraph,) = model.subgraphs
    assert not refused(model, subgraph)
    tensors = subgraph.tensors
    found = [
        tuple(tuple(int(side) for side in tensors[i].shape) for i in operation.inputs[:2])
        for operation in subgraph.operators
        if KINDS[model.operatorCodes[operation.opcodeIndex].builtinCode] == "CONV_2D"
        and tensors[operation.inputs[1]].type == schema.TensorType.INT8
        and tensors[operation.inputs[0]].type == schema.TensorType.FLOAT32
    ]
    side = 112  # each row of the map has a range of its own; to four times the width and back
    widen, narrow = ((side, side, 1, 32), (128, 1, 1, 32)), ((side, side, 1, 128), (32, 1, 1, 128))
    assert found == [widen, narrow] * 2


def test_only_layers_of_single_cells_become_others() -> None:
    model = schema.ModelT()
    model.operatorCodes, model.buffers = [], [schema.BufferT()]
    subgraph = schema.SubGraphT()
    subgraph.tensors, subgraph.operators = [], []
    writer = SubgraphWriter(model, subgraph)
    kind = schema.TensorType
    for kernel, stride in ((1, 1), (3, 1), (1, 2)):
        source = writer.new_tensor(b"source", (1, 6, 6, 8), kind.FLOAT32)
        weight = writer.new_tensor(b"weight", (4, kernel, kernel, 8), kind.INT8)
        made = writer.new_tensor(b"made", (1, 6 // stride, 6 // stride, 4), kind.FLOAT32)
        writer.emit(schema.BuiltinOperator.CONV_2D, [source, weight, writer.new_constant(b"bias", [0] * 4)], made)
        options = schema.Conv2DOptionsT()
        options.strideH = options.strideW = stride
        writer.operations[-1].builtinOptions = options
    subgraph.operators, model.subgraphs = writer.operations, [subgraph]
    kept = subgraph.operators[1:]
    prefer_half(model)
    assert [KINDS[model.operatorCodes[op.opcodeIndex].builtinCode] for op in subgraph.operators[:3]] == [
        "RESHAPE",
        "CONV_2D",
        "RESHAPE",
    ]
    assert subgraph.operators[3:] == kept


def test_the_int8_decoder_needs_no_xnnpack(artifacts_dir: Path) -> None:
    content = (artifacts_dir / "decoder.int8.tflite").read_bytes()
    # both round their inputs to 8 bits, each in its own way
    assert error(decode(content, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES), decode(content)) < 4 / 127
