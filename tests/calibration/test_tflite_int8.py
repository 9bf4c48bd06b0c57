"""The real float encoder in TFLite: matching with ONNX, quantizing, packing."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.feeds import image_feed
from tinysam.calibration.images import load_image_set
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.tensor_ranges import TensorRanges, calibrate
from tinysam.calibration.tflite_constants import pack_constants
from tinysam.calibration.tflite_graph import integer_operations
from tinysam.calibration.tflite_int8 import quantize_tflite
from tinysam.runtime.manifest import read_manifest


@pytest.fixture(scope="module")
def graph(artifacts_dir: Path) -> Graph:
    return Graph(onnx.load(artifacts_dir / "encoder.fp32.onnx"))


@pytest.fixture(scope="module")
def image(artifacts_dir: Path) -> np.ndarray:
    return image_feed(load_image_set(None, 1, long_side=448).images[0], read_manifest(artifacts_dir)).image


@pytest.fixture(scope="module")
def ranges(artifacts_dir: Path, image: np.ndarray) -> TensorRanges:
    return calibrate(artifacts_dir / "encoder.fp32.onnx", [{"image": image}], "minmax")


def encode(content: bytes, image: np.ndarray) -> np.ndarray:
    runner = Interpreter(model_content=content).get_signature_runner("encode")
    return runner(image=np.ascontiguousarray(image.transpose(0, 2, 3, 1)))["image_embeddings"]


def test_every_linear_layer_has_its_twin(artifacts_dir: Path, graph: Graph) -> None:
    found = integer_operations(artifacts_dir / "encoder.fp32.tflite", graph)
    assert {operation.node for operation in found if operation.node} == {node.name for node in graph.linear_nodes()}
    assert {operation.kind for operation in found} >= {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "GELU", "PAD"}


def test_matched_tensors_have_the_same_values(artifacts_dir: Path, graph: Graph, image: np.ndarray) -> None:
    import onnxruntime as ort

    operation = next(
        op for op in integer_operations(artifacts_dir / "encoder.fp32.tflite", graph) if op.kind == "FULLY_CONNECTED"
    )
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
    artifacts_dir: Path, graph: Graph, ranges: TensorRanges, image: np.ndarray, tmp_path: Path
) -> None:
    source = artifacts_dir / "encoder.fp32.tflite"
    contents = []
    for name in ("a.tflite", "b.tflite"):
        facts = quantize_tflite(source, tmp_path / name, graph, ranges)
        contents.append(pack_constants((tmp_path / name).read_bytes()))
    assert contents[0] == contents[1]
    assert facts["integer_operations"][0] == "ADD"
    assert len(contents[0]) < 0.3 * source.stat().st_size
    expected, found = encode(source.read_bytes(), image), encode(contents[0], image)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.1


def test_packing_constants_changes_little(artifacts_dir: Path, image: np.ndarray) -> None:
    content = (artifacts_dir / "encoder.fp32.tflite").read_bytes()
    packed = pack_constants(content)
    assert len(packed) < 0.85 * len(content)  # the attention biases
    expected, found = encode(content, image), encode(packed, image)
    assert 0 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.01


def test_a_file_of_another_model_is_refused(artifacts_dir: Path, ranges: TensorRanges, tmp_path: Path) -> None:
    decoder = Graph(onnx.load(artifacts_dir / "decoder.fp32.onnx"))
    with pytest.raises(CalibrationError, match="no operation matches the ONNX file; export both again"):
        quantize_tflite(artifacts_dir / "encoder.fp32.tflite", tmp_path / "x.tflite", decoder, ranges)
    assert not (tmp_path / "x.tflite").exists()
