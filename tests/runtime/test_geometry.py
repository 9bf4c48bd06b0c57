"""Frames: there and back, SAM's rounding, the official resize."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tinysam.runtime.geometry import Frame
from tinysam.runtime.preprocess import resize

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
model_sizes = st.sampled_from([64, 448, 1024])


@given(sizes, model_sizes, st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_point_comes_back_from_the_model_frame(
    size: tuple[int, int], image_size: int, share: tuple[float, float]
) -> None:
    frame = Frame(size, image_size)
    point = np.array(share) * [size[1], size[0]]
    inside = frame.to_model(point)
    assert (inside >= 0).all()
    assert (inside <= np.array(frame.input_size[::-1]) * (1 + 1e-6)).all()
    # float32 in the model frame: 24 bits of at most 1024 pixels, scaled to the photograph
    np.testing.assert_allclose(frame.to_original(inside), point, atol=2e-7 * max(size), rtol=2e-7)


@given(sizes, model_sizes)
def test_long_side_fills_the_input(size: tuple[int, int], image_size: int) -> None:
    frame = Frame(size, image_size)
    assert max(frame.input_size) == image_size
    assert min(frame.input_size) >= 1
    ratio = image_size / max(size)
    for new, old in zip(frame.input_size, size, strict=True):
        assert abs(new - old * ratio) <= 0.5 or new == 1


@pytest.mark.parametrize(
    ("size", "image_size", "expected"),
    [
        ((425, 640), 1024, (680, 1024)),
        ((1200, 1800), 1024, (683, 1024)),  # 682.67
        ((3, 448), 448, (3, 448)),
        ((7, 896), 448, (4, 448)),  # 3.5 goes up
        ((1, 4000), 448, (1, 448)),  # 0.1 would be nothing
    ],
)
def test_input_size_by_hand(size: tuple[int, int], image_size: int, expected: tuple[int, int]) -> None:
    assert Frame(size, image_size).input_size == expected


def test_resize_equals_the_official_one() -> None:
    golden = pytest.importorskip("tests.models.golden")
    image, arrays = golden.photograph(), golden.outputs("tinysam")
    frame = Frame(image.shape[:2], golden.IMAGE_SIZE)
    assert frame.input_size == tuple(arrays["resized_hw"])
    np.testing.assert_array_equal(resize(Image.fromarray(image), frame)[golden.RESIZED], arrays["resized"])
