"""The real float encoder in TFLite: matching with ONNX, quantizing, packing."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.feeds import image_feed
from tinysam.calibration.images import load_image_set
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.tensor_ranges import TensorRanges, calibrate
from tinysam.calibration.tflite_constants import pack_constants, to_bytes
from tinysam.calibration.tflite_graph import integer_operations
from tinysam.calibration.tflite_int8 import chosen_operations, operations_of, quantize_tflite
from tinysam.runtime.manifest import read_manifest


@pytest.fixture(scope="module")
def graph(artifacts_dir: Path) -> Graph:
    return Graph(onnx.load(artifacts_dir / "encoder.fp32.onnx"))


@pytest.fixture(scope="module")
def image(artifacts_dir: Path) -> np.ndarray:
    return image_feed(load_image_set(None, 1, long_side=448).images[0], read_manifest(artifacts_dir)).image


@pytest.fixture(scope="module")
def ranges(artifacts_dir: Path, image: np.ndarray) -> TensorRanges:
    return calibrate(onnx.load(artifacts_dir / "encoder.fp32.onnx"), [{"image": image}], "minmax")


def encode(content: bytes, image: np.ndarray) -> np.ndarray:
    runner = Interpreter(model_content=content).get_signature_runner("encode")
    return runner(image=np.ascontiguousarray(image.transpose(0, 2, 3, 1)))["image_embeddings"]


def packed(content: bytes) -> bytes:
    """The file with its constants packed."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    pack_constants(model)
    return to_bytes(model)


def test_a_gelu_between_float_layers_is_float(artifacts_dir: Path, graph: Graph) -> None:
    content = (artifacts_dir / "encoder.fp32.tflite").read_bytes()
    first, second = graph.linear_nodes()[:2]
    kinds = [op.kind for op in chosen_operations(content, graph, frozenset())]
    fewer = [op.kind for op in chosen_operations(content, graph, frozenset({first.name, second.name}))]
    # the GELU between the two, and those behind the additions that their float result goes into
    assert [kinds.count(kind) - fewer.count(kind) for kind in ("CONV_2D", "GELU", "PAD")] == [2, 3, 2]
    everything = frozenset(node.name for node in graph.linear_nodes())
    assert chosen_operations(content, graph, everything) == []


def test_every_linear_layer_has_its_twin(artifacts_dir: Path, graph: Graph) -> None:
    found = integer_operations((artifacts_dir / "encoder.fp32.tflite").read_bytes(), graph)
    assert {operation.node for operation in found if operation.node} == {node.name for node in graph.linear_nodes()}
    assert {operation.kind for operation in found} >= {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "GELU", "PAD"}


def test_matched_tensors_have_the_same_values(artifacts_dir: Path, graph: Graph, image: np.ndarray) -> None:
    import onnxruntime as ort

    content = (artifacts_dir / "encoder.fp32.tflite").read_bytes()
    operation = next(op for op in integer_operations(content, graph) if op.kind == "FULLY_CONNECTED")
    model = onnx.load(artifacts_dir / "encoder.fp32.onnx")
    twin = operation.activations[operation.output]
    model.graph.output.append(onnx.helper.make_tensor_value_info(twin, onnx.TensorProto.FLOAT, None))
    expected = ort.InferenceSession(model.SerializeToString()).run([twin], {"image": image})[0]
    interpreter = Interpreter(str(artifacts_dir / "encoder.fp32.tflite"), experimental_preserve_all_tensors=True)
    runner = interpreter.get_signature_runner("encode")
    runner(image=np.ascontiguousarray(image.transpose(0, 2, 3, 1)))
    index = next(d["index"] for d in interpreter.get_tensor_details() if d["name"] == operation.output)
    np.testing.assert_allclose(interpreter.get_tensor(index).reshape(expected.shape), expected, atol=1e-4)


def test_quantized_and_packed_encoder_is_close_small_and_repeatable(
    artifacts_dir: Path, graph: Graph, ranges: TensorRanges, image: np.ndarray
) -> None:
    source = (artifacts_dir / "encoder.fp32.tflite").read_bytes()
    contents = []
    for _ in range(2):
        content, _ = quantize_tflite(source, graph, ranges)
        contents.append(packed(content))
    assert contents[0] == contents[1]
    facts = operations_of(schema.ModelT.InitFromPackedBuf(contents[0], 0))
    assert facts["integer_operations"][0] == "ADD"
    assert facts["dynamic_operations"] == []
    assert len(contents[0]) < 0.3 * len(source)
    expected, found = encode(source, image), encode(contents[0], image)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.1


def test_packing_constants_changes_little(artifacts_dir: Path, image: np.ndarray) -> None:
    content = (artifacts_dir / "encoder.fp32.tflite").read_bytes()
    small = packed(content)
    assert len(small) < 0.85 * len(content)  # the attention biases
    expected, found = encode(content, image), encode(small, image)
    assert 0 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.01


def test_a_file_of_another_model_is_refused(artifacts_dir: Path, ranges: TensorRanges) -> None:
    decoder = Graph(onnx.load(artifacts_dir / "decoder.fp32.onnx"))
    with pytest.raises(CalibrationError, match="no operation matches the ONNX graph; export both again"):
        quantize_tflite((artifacts_dir / "encoder.fp32.tflite").read_bytes(), decoder, ranges)


def test_dynamic_layers_have_int8_weights_between_float_tensors(
    artifacts_dir: Path, graph: Graph, ranges: TensorRanges, image: np.ndarray
) -> None:
    source = (artifacts_dir / "encoder.fp32.tflite").read_bytes()
    node = next(op.node for op in integer_operations(source, graph) if op.kind == "FULLY_CONNECTED")
    everything = frozenset(one.name for one in graph.linear_nodes())
    content, _ = quantize_tflite(source, graph, ranges, everything - {graph.linear_nodes()[-1].name}, frozenset({node}))
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    layers = [
        [model.subgraphs[0].tensors[i].type for i in (*operation.inputs[:2], operation.outputs[0])]
        for operation in model.subgraphs[0].operators
        if codes[operation.opcodeIndex] == schema.BuiltinOperator.FULLY_CONNECTED
    ]
    kind = schema.TensorType
    assert layers.count([kind.FLOAT32, kind.INT8, kind.FLOAT32]) == 1
    assert layers.count([kind.FLOAT32] * 3) == len(layers) - 1
    expected, found = encode(source, image), encode(content, image)
    assert 0 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.02
