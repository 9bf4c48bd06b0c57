"""Equalization of a small network with attention and hidden units, and its table against the real graphs."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from tinysam.calibration import equalization
from tinysam.calibration.equalization import (
    LARGEST_VALUE,
    PAIRS,
    UNPAIRED,
    Network,
    Pair,
    equalize,
    factors,
    pattern,
    places,
)
from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.onnx_int8 import OnnxScheme, quantize_onnx
from tinysam.calibration.parameters import replace_onnx
from tinysam.calibration.tensor_ranges import calibrate
from tinysam.export.encoder_graph import encoder_graph
from tinysam.export.formats.onnx import to_onnx
from tinysam.models.variants import build, get_variant

WIDTH, HEADS, ROWS = 16, 2, 12


class Attention(nn.Module):
    """One head-wise attention with the names of the encoder's, and hidden units with a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.lin1, self.lin2, self.lin3 = nn.Linear(WIDTH, 24), nn.Linear(24, 20), nn.Linear(20, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).reshape(ROWS, HEADS, -1).transpose(0, 1) for layer in (self.q, self.k, self.v))
        y = (q @ k.transpose(1, 2)).softmax(-1) @ v
        y = self.proj(y.transpose(0, 1).reshape(ROWS, WIDTH))
        return y + self.lin3(torch.relu(self.lin2(torch.relu(self.lin1(y)))))


SMALL = (
    Pair("q", ("k",), product=True, free=True),
    Pair("v", ("proj",), absorbs="proj.bias"),
    Pair("lin1", ("lin2",), seen_after=True),
    Pair("lin2", ("lin3",), seen_after=True),
)


def network(seed: float = 0.0) -> Attention:
    torch.manual_seed(0)
    module = Attention().eval()
    if seed:
        rescale(module, int(seed))
    return module


@torch.no_grad()
def rescale(module: Attention, seed: int) -> None:
    """Scales channels and shifts keys so that the function stays what it is."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> torch.Tensor:
        return torch.exp(1.2 * torch.randn(count, generator=generator))

    for first, second in ((module.v, module.proj), (module.lin1, module.lin2), (module.lin2, module.lin3)):
        scale = draw(len(first.weight))
        first.weight *= scale[:, None]
        first.bias *= scale
        second.weight /= scale
    scale = draw(WIDTH)
    module.q.weight *= scale[:, None]
    module.q.bias *= scale
    module.k.weight /= scale[:, None]
    module.k.bias /= scale
    module.k.bias += 3 * torch.randn(WIDTH, generator=generator)


def graph(module: Attention, path: Path) -> onnx.ModelProto:
    to_onnx(module, {"x": torch.randn(ROWS, WIDTH)}, ("y",), path)
    return onnx.load(path)


def feeds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(ROWS, WIDTH)).astype(np.float32)} for _ in range(8)]


def answer(model: onnx.ModelProto) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString()).run(None, feeds()[0])[0]


@pytest.fixture(autouse=True)
def small_table(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if not {"artifacts_dir", "real_table"} & set(request.fixturenames):
        monkeypatch.setattr(equalization, "PAIRS", SMALL)


def test_the_function_stays_and_every_pair_changes(tmp_path: Path) -> None:
    model = graph(network(), tmp_path / "a.onnx")
    found = equalize(model, feeds())
    assert {name.split(".")[0] for name in found.values} == {"q", "k", "v", "proj", "lin1", "lin2", "lin3"}
    assert len(found.rows) == 4
    np.testing.assert_allclose(answer(replace_onnx(model, found.values)), answer(model), atol=1e-5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rescaled_checkpoints_end_at_the_same_network(tmp_path: Path, seed: int) -> None:
    ends = []
    for name, module in (("plain", network()), ("rescaled", network(seed))):
        model = graph(module, tmp_path / f"{name}.onnx")
        ends.append(equalize(model, feeds()).values)
    plain, rescaled = ends
    for name, value in plain.items():
        np.testing.assert_allclose(rescaled[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_keys_are_centred(tmp_path: Path) -> None:
    model = graph(network(2), tmp_path / "a.onnx")
    values = equalize(model, feeds()).values
    keys = np.concatenate([feed["x"] for feed in feeds()]) @ values["k.weight"].T + values["k.bias"]
    np.testing.assert_allclose(keys.max(0), -keys.min(0), rtol=1e-3)


def test_both_sides_span_the_same_and_factors_move_against_a_rescaling() -> None:
    ranges, columns = np.array([1.0, 4.0, 100.0]), np.array([2.0, 0.5, 3.0])
    found = factors(ranges, columns, 0.5)
    np.testing.assert_allclose(ranges * found, columns / found)
    scale = np.array([8.0, 0.1, 3.0])
    np.testing.assert_allclose(factors(ranges * scale, columns / scale, 0.5), found / scale)
    flat = ranges * factors(ranges, columns, 1.0)
    np.testing.assert_allclose(flat, flat[0])


def test_dead_sides_get_finite_factors_that_make_the_live_side_ordinary() -> None:
    ranges, columns = np.array([1.0, 0.0, 4.0, 0.0, 1e-300]), np.array([1.0, 1000.0, 4.0, 0.0, 1.0])
    found = factors(ranges, columns, 0.5)
    assert np.isfinite(found).all()
    assert found[3] == 1
    assert columns[1] / found[1] == pytest.approx(2.0)  # the mean of 1 and 4 of the live channels, geometrically
    only_read = factors(np.array([1.0, 1000.0, 4.0]), np.array([1.0, 0.0, 4.0]), 0.5)
    assert 1000 * only_read[1] == pytest.approx(2.0)
    np.testing.assert_array_equal(factors(np.zeros(3), np.ones(3), 0.5), np.ones(3))


def int8_error(module: Attention, path: Path) -> float:
    """Relative error of the equalized network as integers."""
    model = graph(module, path)
    equalized = replace_onnx(model, equalize(model, feeds()).values)
    quantized, _ = quantize_onnx(equalized, calibrate(equalized, feeds(), "minmax"), OnnxScheme("x86"))
    expected, found = answer(model), answer(quantized)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("ratio", [1e-38, 1e-25, 1e25, 1e30])
@pytest.mark.parametrize("pair", [("v", "proj"), ("lin1", "lin2")])
def test_extreme_factors_cost_no_accuracy(tmp_path: Path, pair: tuple[str, str], ratio: float) -> None:
    plain, extreme = network(), network()
    first, second = (getattr(extreme, name) for name in pair)
    with torch.no_grad():
        first.weight[3] *= ratio
        first.bias[3] *= ratio
        second.weight[:, 3] /= ratio
    expected = int8_error(plain, tmp_path / "plain.onnx")
    assert 0 < expected < 0.02
    assert int8_error(extreme, tmp_path / "extreme.onnx") < 1.05 * expected


@pytest.mark.parametrize("column", [1e-38, 1e30, 3e38])
@pytest.mark.parametrize("pair", [("v", "proj"), ("lin1", "lin2")])
def test_what_reads_a_channel_of_zeros_costs_no_accuracy(tmp_path: Path, pair: tuple[str, str], column: float) -> None:
    plain, extreme = network(), network()
    for module, size in ((plain, 0.1), (extreme, column)):
        first, second = (getattr(module, name) for name in pair)
        with torch.no_grad():
            first.weight[3], first.bias[3], second.weight[:, 3] = 0, 0, size
    expected = int8_error(plain, tmp_path / "plain.onnx")
    assert int8_error(extreme, tmp_path / "extreme.onnx") < 1.05 * expected


def test_no_factor_takes_parameters_out_of_float(tmp_path: Path) -> None:
    """A hidden unit that is never on, its parameters large and read by large weights."""
    module = network()
    with torch.no_grad():
        module.lin1.weight[3], module.lin1.bias[3], module.lin2.weight[:, 3] = 1e12, -1e15, 1e30
    model = graph(module, tmp_path / "a.onnx")
    values = equalize(model, feeds()).values
    assert max(float(np.abs(value).max()) for value in values.values()) <= LARGEST_VALUE
    assert np.isfinite(answer(replace_onnx(model, values))).all()


def test_values_beyond_float_are_refused(tmp_path: Path) -> None:
    model = graph(network(), tmp_path / "a.onnx")
    with pytest.raises(CalibrationError, match="activation .* is not finite"):
        equalize(model, [{"x": np.full((ROWS, WIDTH), 1e38, np.float32)}])


def test_parameters_that_share_their_values_stay_and_the_function_too(tmp_path: Path) -> None:
    module = network()
    with torch.no_grad():
        module.k.bias.zero_()
        module.q.bias.zero_()
        module.proj.weight.copy_(module.v.weight)
    model = graph(module, tmp_path / "a.onnx")
    found = equalize(model, feeds())
    assert not {"v.weight", "proj.weight", "k.bias", "q.bias"} & set(found.values)
    assert {"q.weight", "k.weight", "lin1.weight"} <= set(found.values)
    np.testing.assert_allclose(answer(replace_onnx(model, found.values)), answer(model), atol=1e-5)


@pytest.fixture
def real_table() -> None:
    """Asks for the table as it is."""


@pytest.mark.usefixtures("real_table")
def test_the_layers_of_a_repvit_are_in_pairs_or_named_with_the_reason(tmp_path: Path) -> None:
    """With the function unchanged; at 128 pixels, with random parameters."""
    torch.manual_seed(0)
    encoder = build(get_variant("edgesam"), 128).image_encoder
    image = torch.randn(1, 3, 128, 128)
    to_onnx(encoder_graph(encoder, 128), {"image": image}, ("image_embeddings",), tmp_path / "repvit.onnx")
    model = onnx.load(tmp_path / "repvit.onnx")
    network = Network(model)
    layers = {name for name, node in network.nodes.items() if node.op_type != "LayerNormalization"}
    paired = {name for place in places(network) for name in (place.makes, *place.reads)}
    assert not {name for name in layers - paired if not named(name)}
    assert {name.split(".")[-1] for name in paired} >= {"depthwise", "project", "fc1", "fc2", "smooth"}
    values = equalize(model, [{"image": image.numpy()}]).values
    before, after = (
        ort.InferenceSession(one.SerializeToString()).run(None, {"image": image.numpy()})[0]
        for one in (model, replace_onnx(model, values))
    )
    assert np.linalg.norm(after - before) / np.linalg.norm(before) < 1e-4


def named(name: str) -> bool:
    """Whether a layer is in `UNPAIRED`."""
    return any(pattern(unpaired).match(name) for unpaired in UNPAIRED)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_every_layer_of_the_graphs_is_in_a_pair_or_named_with_the_reason(artifacts_dir: Path, part: str) -> None:
    network = Network(onnx.load(artifacts_dir / f"{part}.fp32.onnx"))
    found = places(network)
    paired = {name for place in found for name in (place.makes, *place.reads)}
    layers = {name for name, node in network.nodes.items() if node.op_type != "LayerNormalization"}
    assert not {name for name in layers - paired if not named(name)}
    prefix = "decoder." if part == "decoder" else ""
    foreign = ("depthwise", "excite.fc1")  # of another encoder
    expected = [p for p in PAIRS if p.makes.startswith("decoder.") == bool(prefix) and not p.makes.endswith(foreign)]
    assert {place.pair for place in found} == set(expected)
    assert all(reason for reason in UNPAIRED.values())
