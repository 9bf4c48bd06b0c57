"""The QDQ rewriting of a small graph that has every pattern of the encoder."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.observers import observe
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.onnx_int8 import OnnxScheme, quantize_onnx
from tinysam.calibration.tensor_ranges import TensorRanges, calibrate
from tinysam.export.formats.onnx import to_onnx
from tinysam.export.tinyvit_graph import EdgeAttention
from tinysam.export.windows import regions
from tinysam.models.tinyvit import WindowAttention


class Small(nn.Module):
    """Convolution, GELU, depthwise convolution, residual into GELU, linear layers, float layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.norm = nn.LayerNorm(16)
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 16)
        self.table = nn.Parameter(torch.randn(1, 64, 16 * 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        act = nn.functional.gelu
        x = act(self.stem(x))
        x = act(x + self.depthwise(x))
        rows = x.permute(0, 2, 3, 1).reshape(-1, 16)
        rows = rows + self.fc2(act(self.fc1(self.norm(rows))))
        return rows.reshape(1, 64, 16 * 16) + self.table


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("graph") / "small.onnx"
    to_onnx(Small().eval(), {"x": torch.randn(1, 3, 64, 64)}, ("y",), path)
    return path


def feeds(count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(1, 3, 64, 64)).astype(np.float32)} for _ in range(count)]


def quantize(source: Path, destination: Path, found: TensorRanges, scheme: OnnxScheme) -> dict[str, object]:
    model, facts = quantize_onnx(onnx.load(source), found, scheme)
    onnx.save(model, destination)
    return facts


def run(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    return ort.InferenceSession(str(path)).run(None, feed)[0]


@pytest.mark.parametrize("target", ["arm", "x86"])
def test_the_integer_graph_computes_nearly_the_same(source: Path, tmp_path: Path, target: str) -> None:
    found = calibrate(onnx.load(source), feeds(), "minmax")
    facts = quantize(source, tmp_path / "int8.onnx", found, OnnxScheme(target))
    assert facts["integer_operations"] == ["Conv", "Gelu", "Gemm"]
    kinds = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    # Between the linear layers GELU is integer; the other two have a float addition behind or before them.
    assert (kinds.count("Sigmoid"), kinds.count("Gelu")) == (1, 2)
    # The layer before it gives integers: on ARM that is a convolution, beside those that are convolutions anyway.
    assert (kinds.count("Conv"), kinds.count("Gemm")) == {"arm": (3, 1), "x86": (2, 2)}[target]
    expected, got = (run(path, feeds(1)[0]) for path in (source, tmp_path / "int8.onnx"))
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.03


def test_target_decides_the_sign_of_activations_and_weights_stay_symmetric(source: Path, tmp_path: Path) -> None:
    found = calibrate(onnx.load(source), feeds(), "minmax")
    for target, kind in (("arm", onnx.TensorProto.INT8), ("x86", onnx.TensorProto.UINT8)):
        quantize(source, tmp_path / "int8.onnx", found, OnnxScheme(target))
        model = onnx.load(tmp_path / "int8.onnx")
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "QuantizeLinear":
                assert tensors[node.input[2]].data_type == kind
        weights = [onnx.numpy_helper.to_array(t) for name, t in tensors.items() if name.endswith(".int8")]
        assert len(weights) == 5  # four layers and the large constant
        assert min(int(weight.min()) for weight in weights) >= -127


def test_no_weight_is_left_in_float(source: Path, tmp_path: Path) -> None:
    quantize(source, tmp_path / "int8.onnx", calibrate(onnx.load(source), feeds(), "mse"), OnnxScheme("x86"))
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    assert {name for name, values in constants.items() if values.dtype == np.float32 and values.ndim > 1} == {
        "table.scale",
    }


def test_float_layers_can_store_their_weights_as_int8(source: Path, tmp_path: Path) -> None:
    found = calibrate(onnx.load(source), feeds(), "minmax")
    names = {node.name for node in Graph(onnx.load(source)).linear_nodes() if node.weight.ndim == 2}
    outputs = {}
    for stored in (frozenset(), frozenset(names)):
        path = tmp_path / f"{len(stored)}.onnx"
        quantize(source, path, found, OnnxScheme("arm", keep_float=frozenset(names), stored=stored))
        outputs[len(stored)] = run(path, feeds(1)[0])
        weights = {tensor.name for tensor in onnx.load(path).graph.initializer if "fc" in tensor.name}
        assert ("fc1.weight.int8" in weights, "fc1.weight" in weights) == (bool(stored), not stored)
    difference = np.linalg.norm(outputs[2] - outputs[0]) / np.linalg.norm(outputs[0])
    assert 0 < difference < 0.005


def test_nodes_that_are_to_stay_float_do(source: Path, tmp_path: Path) -> None:
    model = onnx.load(source)
    convolutions = frozenset(node.name for node in model.graph.node if node.op_type == "Conv")
    found = calibrate(onnx.load(source), feeds(), "minmax")
    facts = quantize(source, tmp_path / "mixed.onnx", found, OnnxScheme("x86", convolutions))
    assert "Conv" not in facts["integer_operations"]
    assert facts["float_nodes"] == sorted(convolutions)
    expected, got = (run(path, feeds(1)[0]) for path in (source, tmp_path / "mixed.onnx"))
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.03


def test_the_same_input_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        quantize(source, tmp_path / name, calibrate(onnx.load(source), feeds(), "mse"), OnnxScheme("arm"))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_observed_extremes_and_samples_are_those_of_numpy(source: Path) -> None:
    model = onnx.load(source)
    feed = feeds(2)
    seen = observe(model, ["x"], feed)["x"]
    everything = np.concatenate([f["x"].ravel() for f in feed])
    assert (seen.low, seen.high) == (everything.min(), everything.max())
    step = (3 * 64 * 64 // 4096) | 1
    np.testing.assert_array_equal(seen.values, np.concatenate([f["x"].ravel()[::step] for f in feed]))


def test_values_that_are_not_finite_name_the_activation(source: Path) -> None:
    feed = feeds(1)
    feed[0]["x"][0, 0, 0, 0] = np.inf
    with pytest.raises(CalibrationError, match="activation x is not finite"):
        calibrate(onnx.load(source), feed, "minmax")


def test_no_feeds_are_an_error(source: Path) -> None:
    with pytest.raises(CalibrationError, match="no calibration images"):
        calibrate(onnx.load(source), [], "minmax")


def test_graph_outputs_stay_float(source: Path) -> None:
    graph = Graph(onnx.load(source))
    chosen = graph.integer_nodes(frozenset())
    assert not {node.output[0] for node in chosen} & graph.outputs


class Bottleneck(nn.Module):
    """A residual bottleneck of convolutions, and a depthwise convolution of the residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.project = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)
        self.depthwise, self.local = (nn.Conv2d(n, n, 3, padding=1, groups=n) for n in (16, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        act = nn.functional.gelu
        x = x + self.project(act(self.depthwise(act(self.expand(x)))))
        return self.local(x).relu()


def test_a_bottleneck_is_integer_up_to_its_last_result(tmp_path: Path) -> None:
    to_onnx(Bottleneck().eval(), {"x": torch.randn(1, 8, 9, 11)}, ("y",), tmp_path / "float.onnx")
    model = onnx.load(tmp_path / "float.onnx")
    feed = {"x": np.random.default_rng(0).normal(size=(1, 8, 9, 11)).astype(np.float32)}
    found = calibrate(model, [feed], "minmax")
    quantized, facts = quantize_onnx(model, found, OnnxScheme("arm"))
    assert facts["integer_operations"] == ["Conv", "Gelu", "Gemm"]
    integer = {tensor.name.removesuffix(".weight.int8") for tensor in quantized.graph.initializer}
    assert integer & {"expand", "depthwise", "project", "local"} == {"expand", "depthwise", "project"}
    kinds = [node.op_type for node in quantized.graph.node]
    assert (kinds.count("Sigmoid"), kinds.count("Gelu"), kinds.count("Gemm")) == (2, 0, 1)  # project gives floats
    onnx.save(quantized, tmp_path / "int8.onnx")
    expected, got = (run(tmp_path / name, feed) for name in ("float.onnx", "int8.onnx"))
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.03


def test_products_of_cut_windows_stay_integer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    attention = EdgeAttention(WindowAttention(32, 2, 5), regions(8, 5)).eval()
    x = torch.randn(sum(part.windows * part.cells for part in attention.parts), 32)
    to_onnx(attention, {"x": x}, ("y",), tmp_path / "float.onnx")
    model = onnx.load(tmp_path / "float.onnx")
    model.graph.output[0].name = "end"  # an output of the graph would be float
    model.graph.node.append(onnx.helper.make_node("Identity", ["y"], ["end"]))
    feed = {"x": x.numpy()}
    quantized, facts = quantize_onnx(model, calibrate(model, [feed], "minmax"), OnnxScheme("arm", attention=True))
    assert facts["integer_operations"] == ["Concat", "Conv", "Gemm", "MatMul"]
    onnx.save(quantized, tmp_path / "int8.onnx")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(str(tmp_path / "int8.onnx"), options)
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert (kinds.count("MatMulIntegerToFloat"), kinds.count("QLinearMatMul"), kinds.count("QLinearConcat")) == (
        4,
        4,
        1,
    )
    expected, got = (run(tmp_path / name, feed) for name in ("float.onnx", "int8.onnx"))
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.03


def test_float_operations_may_compute_in_fp16_for_arm_only(source: Path) -> None:
    model = onnx.load(source)
    found, half = calibrate(model, feeds(), "mse"), ("Gelu", "Conv")
    casts = [
        sum(node.op_type == "Cast" for node in quantize_onnx(model, found, scheme)[0].graph.node)
        for scheme in (OnnxScheme("arm"), OnnxScheme("arm", half=half), OnnxScheme("x86", half=half))
    ]
    assert casts[1] > casts[0] == casts[2]
