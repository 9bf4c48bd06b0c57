"""What encoder files take of a photograph, by hand, and the same embedding whichever they take."""

from pathlib import Path

import numpy as np
import pytest

from tests.runtime import disc_model
from tests.runtime.conftest import picture
from tinysam.runtime import Segmenter
from tinysam.runtime.manifest import Manifest
from tinysam.runtime.preprocess import encoder_input

MANIFEST = Manifest("m", 16, 1, (100, 110, 120), (10, 20, 40), (0,), ())
PIXELS = np.array([[[110, 90, 200], [0, 255, 120]]], np.uint8)


def test_normalized_pixels_by_hand_in_both_layouts() -> None:
    found = encoder_input(PIXELS, MANIFEST)
    assert (found.shape, found.dtype) == ((1, 3, 16, 16), np.float32)
    np.testing.assert_allclose(found[0, :, 0, 0], [1, -1, 2])
    np.testing.assert_allclose(found[0, :, 0, 1], [-10, 7.25, 0])
    assert not found[0, :, 1:].any() and not found[0, :, 0, 2:].any()
    last = encoder_input(PIXELS, MANIFEST, layout="NHWC")
    assert last.flags.c_contiguous
    np.testing.assert_array_equal(last, found.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_whole_pixels_come_with_a_channel_that_says_where_they_are(dtype: str) -> None:
    found = encoder_input(PIXELS, MANIFEST, "pixels", "NHWC", dtype)
    assert (found.shape, found.dtype.name) == ((1, 16, 16, 4), dtype)
    assert found[0, 0, :3].tolist() == [[110, 90, 200, 1], [0, 255, 120, 1], [0, 0, 0, 0]]
    assert not found[0, 1:].any()
    np.testing.assert_array_equal(encoder_input(PIXELS, MANIFEST, "pixels", "NCHW", dtype), found.transpose(0, 3, 1, 2))
    between = encoder_input(PIXELS + np.float32(0.4), MANIFEST, "pixels", "NHWC", dtype)
    np.testing.assert_array_equal(between, found)  # 255.4 is no pixel


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_file_that_normalizes_by_itself_gives_the_same_embedding(tmp_path: Path, dtype: str) -> None:
    embeddings = []
    for name, pixel_dtype in (("normalized", None), ("pixels", dtype)):
        folder = disc_model.build(tmp_path / name, pixel_dtype=pixel_dtype)
        segmenter = Segmenter(folder, precision="fp32", threads=1)
        segmenter.set_image(picture(50, 30))
        embeddings.append(segmenter.get_image_embedding())
    assert np.abs(embeddings[0]).max() > 0.01
    np.testing.assert_allclose(embeddings[1], embeddings[0], rtol=1e-4)
