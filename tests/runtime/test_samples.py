"""Pixels of every mode, depth and shape: files, PIL pictures and arrays come out as the same 8-bit RGB."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.runtime.conftest import picture
from tinysam.runtime import ImageError
from tinysam.runtime.image import load_image
from tinysam.runtime.preprocess import to_pil
from tinysam.runtime.samples import array_to_rgb, to_rgb

GREY = np.tile(np.linspace(10, 240, 128), (20, 1))
"""Brightness 0 to 255 that every encoding below stands for."""
COLORS = np.dstack([GREY, GREY[:, ::-1], GREY / 2])


def seen(image: Any, **options: Any) -> tuple[np.ndarray, list[str]]:
    """What the model sees, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rgb = to_pil(image, **options)
    assert rgb.mode == "RGB"
    return np.asarray(rgb).astype(np.float64), [str(warning.message) for warning in caught]


SCALED = {
    "16 bits": (GREY * 257).astype(np.uint16),
    "14 bits in 16": (GREY / 255 * 16383).astype(np.uint16),
    "12 bits in 16": (GREY / 255 * 4095).astype(np.uint16),
    "10 bits in 16": (GREY / 255 * 1023).astype(np.uint16),
    "8 bits in 16": GREY.astype(np.uint16),
    "16 bits in 32": (GREY * 257).astype(np.int32),
    "31 bits": (GREY / 255 * (2**31 - 1)).astype(np.int32),
    "signed bytes": (GREY - 128).astype(np.int8),
    "signed 16 bits": (GREY * 257 - 32768).astype(np.int16),
    "float 0 to 1": (GREY / 255).astype(np.float32),
    "double 0 to 1": GREY / 255,
    "half 0 to 1": (GREY / 255).astype(np.float16),
    "float -1 to 1": (GREY / 127.5 - 1).astype(np.float32),
    "float 0 to 255": GREY.astype(np.float32),
    "float 0 to 65535": (GREY * 257).astype(np.float32),
    "whole numbers of Python": GREY.astype(np.int64),
    "unsigned 32 bits": (GREY / 255 * (2**32 - 1)).astype(np.uint32),
}


@pytest.mark.parametrize("name", SCALED)
def test_samples_of_known_depth_keep_their_brightness(name: str) -> None:
    rgb, said = seen(SCALED[name])
    np.testing.assert_allclose(rgb, GREY[..., None].repeat(3, axis=2), atol=1.01)
    assert "scaled to 8 bits" in said[0]


@pytest.mark.parametrize("name", ["16 bits", "12 bits in 16", "16 bits in 32", "float 0 to 1", "float -1 to 1"])
@pytest.mark.parametrize("kind", ["PIL", "tif"])
def test_pictures_and_files_are_scaled_as_arrays_are(name: str, kind: str, tmp_path: Path) -> None:
    image = Image.fromarray(SCALED[name])
    if kind == "PIL":
        rgb, said = seen(image)
    else:
        image.save(tmp_path / "deep.tif")
        photo = load_image(tmp_path / "deep.tif")
        rgb, said = np.asarray(photo.image), list(photo.notes)
    np.testing.assert_array_equal(rgb, seen(SCALED[name])[0])
    assert "scaled to 8 bits" in said[0]


STRETCHED = {
    "Kelvin": GREY / 10 + 280,
    "thermal camera": (GREY * 6 + 7000).astype(np.uint16),
    "metres with holes": np.where(GREY < 30, -9999, GREY * 10).astype(np.int16),
    "Hounsfield": (GREY * 16 - 1024).astype(np.int16),
    "high dynamic range": (GREY / 12).astype(np.float32),
    "logits": (GREY - 125) / 10,
}


@pytest.mark.parametrize("name", STRETCHED)
def test_other_quantities_are_stretched_over_all_levels(name: str) -> None:
    rgb, said = seen(STRETCHED[name])
    assert (rgb.min(), rgb.max()) == (0, 255)
    column = rgb[0, :, 0]
    assert (np.diff(column) >= 0).all()
    assert len(set(column)) > 100
    assert "is black" in said[0]


def test_even_samples_are_not_stretched_into_noise() -> None:
    noise = np.random.default_rng(0).integers(30000, 30050, (50, 50)).astype(np.uint16)
    rgb, _ = seen(noise)
    assert np.ptp(rgb) <= 1


def test_samples_that_are_not_finite_are_said_and_do_not_spread() -> None:
    samples = (GREY / 255).astype(np.float32)
    samples[0, :3] = np.nan, np.inf, -np.inf
    rgb, said = seen(samples)
    assert rgb[0, :3, 0].tolist() == [0, 255, 0]
    np.testing.assert_allclose(rgb[1:, :, 0], GREY[1:], atol=1)
    assert "3 samples are not finite" in said[0]
    assert not seen(np.full((4, 5), np.nan))[0].any()


def test_bytes_bools_and_plain_pictures_need_no_words() -> None:
    colors = COLORS.astype(np.uint8)
    for image in (colors, Image.fromarray(colors), np.dstack([colors, np.full_like(colors[..., 0], 255)])):
        rgb, said = seen(image)
        np.testing.assert_array_equal(rgb, colors)
        assert said == []
    np.testing.assert_array_equal(seen(GREY > 99)[0][..., 1], 255.0 * (GREY > 99))
    np.testing.assert_array_equal(seen(colors[..., ::-1], image_format="BGR")[0], colors)


@pytest.mark.parametrize("shape", [(20, 128), (20, 128, 1)])
def test_grey_arrays_are_grey_pictures(shape: tuple[int, ...]) -> None:
    rgb, said = seen(GREY.astype(np.uint8).reshape(shape))
    np.testing.assert_array_equal(rgb, GREY.astype(np.uint8)[..., None].repeat(3, axis=2))
    assert said == []


def test_bands_beyond_colour_and_alpha() -> None:
    colors = COLORS.astype(np.uint8)
    rgb, said = seen(np.dstack([colors, colors[..., :2]]))
    np.testing.assert_array_equal(rgb, colors)
    assert "5 bands, only the first three are used" in said[0]
    rgb, said = seen(np.dstack([colors, np.zeros_like(colors[..., 0])]))  # padded, as screen grabbers do
    np.testing.assert_array_equal(rgb, colors)
    assert "4 bands" in said[0]
    near_infrared = array_to_rgb(np.dstack([colors, colors[..., 0]]), has_alpha=False)
    np.testing.assert_array_equal(np.asarray(near_infrared.image), colors)


ALPHA = np.tile(np.array([0, 51, 255, 255], np.uint8), (20, 32))


@pytest.mark.parametrize("kind", ["array", "BGRA", "RGBA", "16 bits", "LA", "La", "PA", "P"])
def test_hidden_colours_do_not_show(kind: str) -> None:
    colors = np.full((20, 128, 3), 40, np.uint8)
    rgba = np.dstack([colors, ALPHA])
    grey = Image.fromarray(colors).convert("L")
    grey.putalpha(Image.fromarray(ALPHA))
    images: dict[str, Any] = {
        "array": rgba,
        "BGRA": rgba,
        "RGBA": Image.fromarray(rgba),
        "16 bits": np.dstack([np.where(ALPHA[..., None] == 0, 255, colors), ALPHA]).astype(np.uint16) * 257,
        "LA": grey,
        "La": grey.convert("La"),
        "PA": grey.getchannel("L").convert("PA"),
    }
    images["PA"].putalpha(Image.fromarray(ALPHA))
    if kind == "P":
        images["P"] = Image.fromarray((ALPHA > 99).astype(np.uint8), "P")
        images["P"].putpalette([9, 99, 200, 40, 40, 40])
        images["P"].info["transparency"] = 0
    rgb, _ = seen(images[kind], **({"image_format": "BGR"} if kind == "BGRA" else {}))
    assert (rgb[ALPHA == 0] == 255).all()
    assert (rgb[ALPHA == 255] == 40).all()
    if kind != "P":
        np.testing.assert_allclose(rgb[ALPHA == 51], 212, atol=1)  # 20 % of 40 on white


@pytest.mark.parametrize("mode", ["RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_colour_modes_of_pil_pictures(mode: str) -> None:
    source = Image.fromarray(COLORS.astype(np.uint8))
    image = source.convert(mode)
    assert np.abs(seen(image)[0] - np.asarray(source)).mean() < 3


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (COLORS.astype(complex), "dtype complex128"),
        ([["a"]], "dtype <U1"),
        (None, "dtype object"),
        (np.zeros((2, 3, 4, 5), np.uint8), r"shape \(2, 3, 4, 5\)"),
        (np.zeros((0, 3), np.uint8), r"shape \(0, 3\)"),
        (np.moveaxis(COLORS.astype(np.uint8), 2, 0), r"channels come first, use image.transpose\(1, 2, 0\)"),
        (Image.new("RGB", (0, 5)), "0 wide and 5 high"),
    ],
)
def test_what_holds_no_picture_is_refused(image: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        to_rgb(image)


def wide_gamut() -> bytes:
    """ICC profile like sRGB's, with the primaries of ProPhoto RGB (ROMM, white point D50)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.7977, 0.2880, 0.0),
        b"gXYZ": (0.1352, 0.7119, 0.0001),
        b"bXYZ": (0.0313, 0.0001, 0.8249),
    }
    for entry in range(132, 132 + 12 * int.from_bytes(data[128:132], "big"), 12):
        xyz = primaries.get(bytes(data[entry : entry + 4]))
        if xyz:
            at = int.from_bytes(data[entry + 4 : entry + 8], "big") + 8
            data[at : at + 12] = b"".join(round(65536 * value).to_bytes(4, "big", signed=True) for value in xyz)
    return bytes(data)


def in_profile(image: Image.Image, data: bytes) -> Image.Image:
    """The same colours in another profile."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(data))
    converted = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), target)
    assert converted is not None
    return converted


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_wide_gamut_photograph_is_seen_as_its_srgb_twin(tmp_path: Path, suffix: str) -> None:
    original = picture(64, 48)
    profile = wide_gamut()  # once: it holds the time of its creation
    stored = in_profile(original, profile)
    path = tmp_path / f"wide.{suffix}"
    stored.save(path, icc_profile=profile, quality=100, **({"lossless": True} if suffix == "webp" else {}))
    photo = load_image(path)
    assert np.abs(np.asarray(stored, np.float32) - np.asarray(original)).mean() > 8
    assert np.abs(np.asarray(photo.image, np.float32) - np.asarray(original)).mean() < 3
    np.testing.assert_array_equal(np.asarray(to_pil(Image.open(path))), np.asarray(photo.image))
    assert photo.notes == ()
    # What is drawn on keeps its numbers and the profile that explains them.
    np.testing.assert_allclose(np.asarray(photo.for_overlay), np.asarray(Image.open(path)))
    assert photo.for_overlay.info["icc_profile"] == profile


def test_srgb_profile_changes_nothing() -> None:
    image = picture()
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    converted = to_rgb(image)
    assert converted.image is converted.own_colors
    np.testing.assert_array_equal(np.asarray(converted.image), np.asarray(picture()))
    assert converted.notes == ()


def test_profile_of_transparent_palette_and_grey_pictures_counts() -> None:
    data = wide_gamut()
    wide = in_profile(picture(), data)
    rgba = wide.copy()
    rgba.putalpha(255)
    grey = Image.fromarray(np.asarray(picture())[..., 0])
    palette = wide.quantize(256)
    from_palette = ImageCms.profileToProfile(
        palette.convert("RGB"), ImageCms.ImageCmsProfile(io.BytesIO(data)), ImageCms.createProfile("sRGB")
    )
    for image, expected in ((rgba, picture()), (palette, from_palette), (grey, grey.convert("RGB"))):
        image.info["icc_profile"] = data
        converted = to_rgb(image)
        assert np.abs(np.asarray(converted.image, np.float32) - np.asarray(expected)).mean() < 3
        assert converted.notes == ()


@pytest.mark.parametrize(
    ("data", "mode", "reason"),
    [
        (b"no profile at all", "RGB", "damaged"),
        (wide_gamut()[:200], "RGB", "damaged"),
        (wide_gamut(), "CMYK", "for RGB and the picture is CMYK"),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), "RGB", "for Lab and the picture is RGB"),
    ],
)
def test_profile_that_cannot_be_used_is_said_and_left_out(data: bytes, mode: str, reason: str) -> None:
    image = picture().convert(mode)
    image.info["icc_profile"] = data
    converted = to_rgb(image)
    assert reason in converted.notes[0]
    assert "icc_profile" not in converted.own_colors.info
    np.testing.assert_array_equal(np.asarray(converted.image), np.asarray(picture().convert(mode).convert("RGB")))
