"""GELU of integers, computed by onnxruntime in the written form, against PyTorch's."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from tinysam.calibration.gelu import LOWEST, gelu_source
from tinysam.calibration.onnx_qdq import Plan, QdqWriter
from tinysam.calibration.qparams import QParams, Range, activation_qparams


def written(source: Range, signed: bool) -> tuple[onnx.ModelProto, QParams]:
    """A GELU of x in [-6, 6] whose input covers `source`, and the parameters of its input."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4001]) for name in ("x", "out")]
    nodes = [helper.make_node("Gelu", ["x"], ["y"], "gelu"), helper.make_node("Identity", ["y"], ["out"], "out")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    params = activation_qparams(gelu_source(source), signed)
    fine = QParams(6.2 / 255, 5 if not signed else -123, signed)
    return QdqWriter(model, Plan(signed, {"gelu"}, {"x": params, "y": fine})).write(), params


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("span", [Range(-6, 6), Range(-2, 6)])
def test_an_integer_gelu_is_within_a_hundredth_besides_its_rounding(signed: bool, span: Range) -> None:
    model, params = written(span, signed)
    assert [node.op_type for node in model.graph.node if node.op_type in ("Gelu", "Sigmoid", "Mul")] == [
        "Sigmoid",
        "Mul",
    ]
    x = np.linspace(max(span.low, -6), 6, 4001, dtype=np.float32)[None]
    expected = torch.nn.functional.gelu(torch.from_numpy(x), approximate="none").numpy()
    (got,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    steps = 1.13 * params.scale / 2 + 6.2 / 255 / 2 + 6 / 510  # of the input, of the result, of the factor
    assert np.abs(got - expected).max() < 0.0095 + steps
    left = got[x < LOWEST - 0.1]
    assert np.all(np.abs(left) < 0.02)  # a sigmoid that is not cut off comes to -0.05 here


def test_values_below_the_lowest_are_cut_off_and_narrow_ranges_stay() -> None:
    assert gelu_source(Range(-9, 5)) == Range(LOWEST, 5)
    assert gelu_source(Range(-1, 5)) == Range(-1, 5)
    assert gelu_source(Range(-9, -5)) == Range(LOWEST, LOWEST)
