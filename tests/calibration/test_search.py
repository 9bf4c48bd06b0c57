"""The search on layers whose best scales are known."""

import numpy as np
import torch

from tinysam.calibration.observers import Observation
from tinysam.calibration.qparams import Range
from tinysam.calibration.search import SearchedLayer, rounded, search_output, search_readers
from tinysam.calibration.search_graph import Found, SearchCache


def seen(values: torch.Tensor) -> Observation:
    found = Observation()
    found.add(float(values.min()), float(values.max()), values.flatten().numpy(), values.numel())
    return found


def layer(outlier_matters: bool) -> SearchedLayer:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 4, 16, generator=generator) * 0.1
    weight[0, 2, 5] = 30.0
    inputs = torch.randn(1, 64, 16, generator=generator)
    if not outlier_matters:
        inputs[..., 5] = 0
    return SearchedLayer.start(weight, inputs, torch.ones(1, 64, 4))


def test_a_weight_that_never_counts_is_cut_off() -> None:
    searched = layer(outlier_matters=False)
    searched.search_weight(searched.inputs)
    assert searched.limits[0, 2] < 1.5
    assert (searched.limits[0, [0, 1, 3]] > 0.1).all()


def test_a_weight_that_counts_is_kept() -> None:
    searched = layer(outlier_matters=True)
    searched.search_weight(searched.inputs)
    assert searched.limits[0, 2] > 25


def test_rows_without_influence_do_not_widen_the_range() -> None:
    generator = torch.Generator().manual_seed(1)
    searched = layer(outlier_matters=False)
    searched.inputs = searched.inputs.abs()  # one fraction serves both ends of a range, so that of zero has to be one
    searched.inputs[0, 0] = 100 * torch.randn(16, generator=generator).abs()
    everything = seen(searched.inputs)
    wide = Range(everything.low, everything.high)
    assert search_readers(everything, wide, [searched]).high > 50
    searched.gradients[0, 0] = 0
    assert search_readers(everything, wide, [searched]).high < 10


def test_the_distance_never_grows() -> None:
    searched = layer(outlier_matters=True)
    searched.gradients = torch.rand(1, 64, 4, generator=torch.Generator().manual_seed(2))
    start = Range(float(searched.inputs.min()), float(searched.inputs.max()))

    def distance(span: Range, limits: torch.Tensor) -> float:
        inputs, weight = rounded(searched.inputs, span), searched.rounded_weight(limits)
        return float(searched.distances(inputs, weight, searched.output()).sum())

    before = distance(start, searched.limits)
    span = search_readers(seen(searched.inputs), start, [searched])
    assert distance(span, searched.limits) < before


def test_outputs_are_cut_off_where_nothing_depends_on_them() -> None:
    inputs = torch.rand(1, 50, 4, generator=torch.Generator().manual_seed(3))
    searched = SearchedLayer.start(torch.eye(4)[None], inputs, torch.ones(1, 50, 4))
    searched.inputs[0, 0] = 40.0
    searched.gradients[0, 0] = 0
    outputs = seen(searched.output())
    assert search_output(outputs, Range(0.0, 40.0), searched, torch.zeros(1, 4)).high < 2


def test_rounding_is_that_of_the_quantized_graph() -> None:
    values = torch.linspace(-3, 5, 50)
    span = Range(-2.0, 4.0)
    scale = np.float32(6 / 255)
    zero = round(-128 + 2 / scale)
    expected = (np.clip(np.rint(values.numpy() / scale) + zero, -128, 127) - zero) * scale
    np.testing.assert_allclose(rounded(values, span).numpy(), expected, atol=1e-6)


def test_what_was_found_survives_an_interruption(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "new" / "search.json"
    SearchCache(path).put("encoder/x", Found(-1.0, 2.0, {"w": [0.5]}))
    assert SearchCache(path).get("encoder/x") == Found(-1.0, 2.0, {"w": [0.5]})
    assert SearchCache(path).get("encoder/y") is None
    path.write_text("{half a")
    assert SearchCache(path).get("encoder/x") is None
