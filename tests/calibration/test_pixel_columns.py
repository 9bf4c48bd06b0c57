"""The product of pixels against the convolution, in onnxruntime."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.calibration.small_graphs import kinds, values
from tinysam.calibration.pixel_columns import multiply_pixels

HEIGHT, WIDTH = 10, 14


def encoder(half: bool = False, kernel: int = 3, **attributes: list[int]) -> onnx.ModelProto:
    """A convolution of four channels of bytes, and a convolution behind it that stays."""
    wanted = {"strides": [2, 2], "pads": [1, 1, 1, 1]} | attributes
    rounding = [
        helper.make_node("Cast", ["a"], ["a.half"], "a.half", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["a.half"], ["b"], "b", to=TensorProto.FLOAT),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["image.float"], "pixels", to=TensorProto.FLOAT),
        helper.make_node("Conv", ["image.float", "weight", "bias"], ["a"], "first", **wanted),
        *(rounding if half else []),
        helper.make_node("Conv", ["b" if half else "a", "second"], ["y"], "second", strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    stored = {"weight": values(6, 4, kernel, kernel) / 64, "bias": values(6), "second": values(5, 6, 3, 3)}
    made = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, 4, HEIGHT, WIDTH))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5, "rows", "columns"))],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in stored.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def multiplied(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    multiply_pixels(changed)
    return changed


def run(model: onnx.ModelProto) -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 256, (1, 4, HEIGHT, WIDTH)).astype(np.uint8)
    return ort.InferenceSession(model.SerializeToString()).run(None, {"image": image})[0]


@pytest.mark.parametrize("half", [False, True])
def test_the_product_gives_what_the_convolution_gives(half: bool) -> None:
    changed = multiplied(encoder(half))
    assert [node.name for node in changed.graph.node if node.op_type == "Conv"] == ["second"]
    (product,) = (node for node in changed.graph.node if node.op_type == "MatMul")
    (rows,) = (tensor for tensor in changed.graph.initializer if tensor.name == product.input[0])
    assert (product.name, list(rows.dims)) == ("first", [6, 37])
    assert rows.data_type == (TensorProto.FLOAT16 if half else TensorProto.FLOAT)
    expected, got = run(encoder(half)), run(changed)
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < (1e-3 if half else 1e-6)


@pytest.mark.parametrize(
    "model",
    [
        encoder(kernel=5, pads=[2, 2, 2, 2]),
        encoder(strides=[1, 1]),
        encoder(pads=[0, 0, 1, 1]),
        encoder(dilations=[2, 2], pads=[1, 1, 1, 1]),
    ],
)
def test_other_convolutions_stay(model: onnx.ModelProto) -> None:
    assert multiplied(model) == model
    assert kinds(model).count("Conv") == 2
