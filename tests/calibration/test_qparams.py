"""Scales, zero points and ranges, against hand arithmetic."""

import math

import numpy as np
import pytest

from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.gelu import gelu
from tinysam.calibration.observers import Observation
from tinysam.calibration.qparams import (
    Range,
    activation_qparams,
    fake_quantize,
    quantize_weight,
    weight_scales,
)
from tinysam.calibration.ranges import find_ranges


def test_unsigned_parameters_by_hand() -> None:
    params = activation_qparams(Range(-1.0, 4.1), signed=False)
    assert params.scale == pytest.approx(0.02)
    assert params.zero_point == 50


def test_signed_parameters_are_the_unsigned_ones_shifted_by_128() -> None:
    unsigned, signed = (activation_qparams(Range(-1.0, 4.1), signed) for signed in (False, True))
    assert signed.scale == unsigned.scale
    assert signed.zero_point == unsigned.zero_point - 128


@pytest.mark.parametrize("span", [Range(0.5, 2.0), Range(-3.0, -1.0), Range(-1.0, 1.0)])
def test_zero_is_always_represented_exactly(span: Range) -> None:
    params = activation_qparams(span, signed=True)
    assert fake_quantize(np.float32([0]), params)[0] == 0


def test_fake_quantization_errs_by_half_a_step_inside_and_clips_outside() -> None:
    params = activation_qparams(Range(-1.0, 1.0), signed=True)
    values = np.linspace(-1, 1, 1001).astype(np.float32)
    assert np.abs(fake_quantize(values, params) - values).max() <= params.scale * 0.51
    assert fake_quantize(np.float32([9]), params)[0] == pytest.approx(1.0, abs=params.scale)


def test_a_range_of_one_point_is_usable_and_a_senseless_one_is_not() -> None:
    assert activation_qparams(Range(0.0, 0.0), signed=True).scale > 0
    for low, high in ((1.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(CalibrationError, match="expected finite numbers in order"):
            Range(low, high)


def test_weights_use_127_steps_per_channel_and_never_minus_128() -> None:
    weight = np.float32([[1.0, -2.54], [0.0, 0.0], [0.001, 0.0005]])
    scales = weight_scales(weight, axis=0)
    assert scales[0] == pytest.approx(0.02)
    integers = quantize_weight(weight, scales, axis=0)
    assert integers.tolist() == [[50, -127], [0, 0], [127, 64]]


def seen(values: np.ndarray) -> Observation:
    observation = Observation()
    observation.add(float(values.min()), float(values.max()), values.astype(np.float32), values.size)
    return observation


def test_range_methods_differ_in_what_they_do_with_an_outlier() -> None:
    values = np.append(np.random.default_rng(0).normal(size=200_000), 100.0)
    found = {m: find_ranges({"x": seen(values)}, m)["x"].high for m in ("minmax", "percentile", "mse")}
    assert found["minmax"] == 100
    assert 3 < found["percentile"] < 5
    assert found["percentile"] < found["mse"] < 100


def test_a_range_before_a_gelu_leaves_out_what_gelu_makes_zero() -> None:
    values = np.random.default_rng(0).normal(-2, 4, size=200_000)
    plain = find_ranges({"x": seen(values)}, "mse")["x"]
    before_gelu = find_ranges({"x": seen(values)}, "mse", frozenset({"x"}))["x"]
    assert plain.low < -10
    assert -5 < before_gelu.low <= -2
    assert before_gelu.high > 0.7 * values.max()


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(CalibrationError, match="range method 'entropy': expected one of minmax, percentile, mse"):
        find_ranges({}, "entropy")


def test_gelu_equals_the_standard_library() -> None:
    x = np.linspace(-6, 6, 241).astype(np.float32)
    expected = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
    np.testing.assert_allclose(gelu(x), expected, atol=1e-6)
