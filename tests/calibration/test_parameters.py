"""New parameters in the real float files: a clipped encoder, one that takes pixels, a decoder of other channels."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper

from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.feeds import ImageFeed, image_feed
from tinysam.calibration.images import load_image_set
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.onnx_int8 import OnnxScheme, quantize_onnx
from tinysam.calibration.parameters import clipped_weights, replace_onnx, replace_tflite
from tinysam.calibration.pixel_input import take_pixels_onnx, take_pixels_tflite
from tinysam.calibration.tensor_ranges import TensorRanges, calibrate
from tinysam.calibration.tflite_constants import dequantize_code, to_bytes
from tinysam.calibration.tflite_int8 import quantize_tflite
from tinysam.models.sam import MEAN, STD
from tinysam.runtime.manifest import Manifest

SHARE = 0.8
"""Of the largest weight of a channel."""


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 3, 448, 448)).astype(np.float32)


@pytest.fixture(scope="module")
def source(artifacts_dir: Path) -> onnx.ModelProto:
    return onnx.load(artifacts_dir / "encoder.fp32.onnx")


@pytest.fixture(scope="module")
def found(source: onnx.ModelProto, image: np.ndarray) -> TensorRanges:
    """Ranges, and limits of four fifths of every channel's largest weight."""
    ranges = calibrate(source, [{"image": image}], "minmax")
    limits = {
        node.parameter: SHARE * abs(node.weight).reshape(len(node.weight), -1).max(1)
        for node in Graph(source).linear_nodes()
    }
    return TensorRanges(ranges.method, ranges.observations, ranges.ranges, limits)


@pytest.fixture(scope="module")
def clipped(source: onnx.ModelProto, found: TensorRanges) -> dict[str, np.ndarray]:
    return clipped_weights(source, found.weight_limits)


@pytest.fixture(scope="module")
def tflite(artifacts_dir: Path) -> bytes:
    return (artifacts_dir / "encoder.fp32.tflite").read_bytes()


def changed(content: bytes, source: onnx.ModelProto, values: dict[str, np.ndarray]) -> bytes:
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    replace_tflite(model, source, values)
    return to_bytes(model)


def encode(content: bytes, image: np.ndarray) -> np.ndarray:
    runner = Interpreter(model_content=content).get_signature_runner("encode")
    return runner(image=np.ascontiguousarray(image.transpose(0, 2, 3, 1)))["image_embeddings"].transpose(0, 3, 1, 2)


def encode_onnx(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString()).run(None, {"image": image})[0]


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_no_weight_exceeds_its_limit(clipped: dict[str, np.ndarray], found: TensorRanges) -> None:
    assert set(clipped) == set(found.weight_limits)
    for name, values in clipped.items():
        largest = abs(values).reshape(len(values), -1).max(1)
        np.testing.assert_allclose(largest, found.weight_limits[name], rtol=1e-6)


def test_both_engines_get_the_same_parameters(
    source: onnx.ModelProto, tflite: bytes, clipped: dict[str, np.ndarray], image: np.ndarray
) -> None:
    expected = encode_onnx(replace_onnx(source, clipped), image)
    assert distance(encode(changed(tflite, source, clipped), image), expected) < 1e-3
    assert distance(encode_onnx(source, image), expected) > 1e-2


def test_the_quantizers_choose_the_scales_that_were_searched_for(
    source: onnx.ModelProto, tflite: bytes, clipped: dict[str, np.ndarray], found: TensorRanges
) -> None:
    graph = replace_onnx(source, clipped)
    model, _ = quantize_onnx(graph, found, OnnxScheme("arm"))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    shapes = {name: numpy_helper.to_array(values).shape for name, values in Graph(source).constants.items()}
    local = {name for name, shape in shapes.items() if shape[1:2] == (1,) and "local_conv" in name}
    integer = set(found.weight_limits) - local  # depthwise convolutions of the residual stream are float
    assert integer
    for name in integer:
        np.testing.assert_allclose(stored[f"{name}.scale"], found.weight_limits[name] / 127, rtol=1e-5)
    content, _ = quantize_tflite(changed(tflite, source, clipped), Graph(graph), found)
    details = Interpreter(model_content=content).get_tensor_details()
    scales = [d["quantization_parameters"]["scales"] for d in details if d["dtype"] == np.int8]
    chosen = [some for some in scales if len(some) > 1]
    for limits in found.weight_limits.values():
        assert any(len(some) == len(limits) and np.allclose(some, limits / 127, rtol=1e-4) for some in chosen)


def rescaled(source: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Parameters of a decoder whose first layer has other channels between tokens and cells, and the same function."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    factors = np.exp(np.random.default_rng(0).normal(size=(3, 1, 8, 1, 16))).astype(np.float32)
    (keys, values, queries), layer = factors, "decoder.transformer.layers.0"
    by = {
        f"{layer}.token_to_image.q.proj.weight": keys.reshape(-1, 1),
        f"{layer}.token_to_image.q.proj.bias": keys.ravel(),
        f"{layer}.token_to_image.to_cells.weight": 1 / keys.swapaxes(2, 3),
        f"{layer}.token_to_image.from_cells.weight": values,
        f"{layer}.token_to_image.out.weight": 1 / values.reshape(1, -1),
        f"{layer}.image_to_token.k.proj.weight": queries.reshape(-1, 1),
        f"{layer}.image_to_token.k.proj.bias": queries.ravel(),
        f"{layer}.image_to_token.to_cells.weight": 1 / queries.swapaxes(2, 3),
    }
    return {name: stored[name] * factor for name, factor in by.items()}


def test_what_is_projected_once_for_a_photograph_gets_the_same_parameters(artifacts_dir: Path) -> None:
    source, content = (
        onnx.load(artifacts_dir / "decoder.fp32.onnx"),
        (artifacts_dir / "decoder.fp32.tflite").read_bytes(),
    )
    random = np.random.default_rng(0)
    embedding = random.normal(size=(1, 28, 28, 256)).astype(np.float32)
    points = {"point_coords": np.float32([[[200, 150], [0, 0]]]), "point_labels": np.float32([[1, -1]])}
    before, after = (Interpreter(model_content=one) for one in (content, changed(content, source, rescaled(source))))
    made = [one.get_signature_runner("prepare")(image_embeddings=embedding) for one in (before, after)]
    for name in ("keys", "values", "queries"):
        assert distance(made[1][name], made[0][name]) > 0.1
    expected, found = (
        one.get_signature_runner("attend_1x2")(**image, **points)
        for one, image in zip((before, after), made, strict=True)
    )
    for name in ("iou_predictions", "mask_weights", "cells"):
        assert distance(found[name], expected[name]) < 1e-5


def test_a_parameter_that_is_not_in_the_file_is_refused(source: onnx.ModelProto, tflite: bytes) -> None:
    name = "smooth.weight"
    other = replace_onnx(source, {name: 2 * numpy_helper.to_array(Graph(source).constants[name])})
    with pytest.raises(CalibrationError, match=r"smooth\.weight is not in the TFLite file; export both again"):
        changed(tflite, other, {name: np.zeros((256, 256, 3, 3), np.float32)})


@pytest.fixture(scope="module")
def photograph() -> ImageFeed:
    """Wider than high, so that there is padding."""
    manifest = Manifest("nano", 448, 28, MEAN, STD, (1, 2, 3), ())
    return image_feed(load_image_set(None, 1, long_side=448).images[0], manifest)


def test_encoders_that_take_pixels_answer_the_same(
    source: onnx.ModelProto, tflite: bytes, photograph: ImageFeed
) -> None:
    height, width = photograph.size
    assert height < 448 or width < 448
    pixels = np.zeros((1, 4, 448, 448), np.uint8)
    pixels[0, :3, :height, :width] = photograph.pixels.transpose(2, 0, 1)
    pixels[0, 3, :height, :width] = 1
    expected = encode_onnx(source, photograph.image)
    model = onnx.ModelProto.FromString(source.SerializeToString())
    take_pixels_onnx(model, MEAN, STD)
    assert distance(encode_onnx(model, pixels), expected) < 1e-5
    flat = schema.ModelT.InitFromPackedBuf(tflite, 0)
    take_pixels_tflite(flat, MEAN, STD, dequantize_code(flat))
    assert distance(encode(to_bytes(flat), pixels), expected) < 1e-3


def test_an_encoder_whose_first_convolution_is_integer_takes_no_pixels(
    source: onnx.ModelProto, found: TensorRanges
) -> None:
    model, _ = quantize_onnx(source, found, OnnxScheme("arm"))
    with pytest.raises(CalibrationError, match="read by something else than one float convolution"):
        take_pixels_onnx(model, MEAN, STD)
