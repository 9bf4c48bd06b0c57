"""Reading pictures: every mode becomes upright RGB; damage becomes one clear error."""

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime.conftest import picture
from tinysam.runtime import ImageError
from tinysam.runtime.image import load_image


def pixels(path: Path) -> np.ndarray:
    image = load_image(path).image
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_gives_the_upright_picture(tmp_path: Path, orientation: int) -> None:
    # What the EXIF standard says row 0 and column 0 of the stored picture show
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a[::-1].swapaxes(0, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a[:, ::-1].swapaxes(0, 1),
    }[orientation]
    stored = np.asarray(picture(30, 20))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(stored).save(path, exif=exif)
    np.testing.assert_array_equal(pixels(path), undo(stored))


def test_damaged_exif_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "exif.jpg"
    picture().save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert pixels(path).shape == (40, 60, 3)


def test_transparency_becomes_white(tmp_path: Path) -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:, 0, 3], rgba[:, 1, 3], rgba[:, 2, 3] = 255, 0, 51
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    expected = [[200, 0, 0], [255, 255, 255], [244, 204, 204]]  # the last is 20 % red on white
    np.testing.assert_allclose(pixels(tmp_path / "alpha.png")[0], expected, atol=1)


def test_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    image.save(tmp_path / "palette.png", transparency=1)
    np.testing.assert_array_equal(pixels(tmp_path / "palette.png"), [[[10, 20, 30], [255, 255, 255]]])


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", "png"),
        ("1", "png"),
        ("LA", "png"),
        ("CMYK", "jpg"),
        ("CMYK", "tif"),
        ("P", "gif"),
        ("YCbCr", "jpg"),
        ("LAB", "tif"),
        ("RGB", "webp"),
        ("RGBA", "webp"),
        ("RGB", "bmp"),
    ],
)
def test_every_mode_becomes_rgb_of_the_same_look(tmp_path: Path, mode: str, suffix: str) -> None:
    source = picture()
    path = tmp_path / f"picture.{suffix}"
    source.convert(mode).save(path, quality=95)
    grey = mode in ("L", "1", "LA")
    expected = np.asarray((source.convert("L") if grey else source).convert("RGB"), np.float32)
    assert np.abs(pixels(path).mean(axis=(0, 1)) - expected.mean(axis=(0, 1))).max() < 12


def test_16_bit_grey_is_scaled(tmp_path: Path) -> None:
    samples = np.array([[0, 257, 32896, 33000, 65535]], np.uint16)
    Image.fromarray(samples).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(pixels(tmp_path / "deep.png")[0, :, 0], [0, 1, 128, 128, 255])
    assert "8 bits" in load_image(tmp_path / "deep.png").notes[0]


def test_floating_point_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0.5, 1, np.nan]], np.float32)).save(tmp_path / "float.tif")
    np.testing.assert_array_equal(pixels(tmp_path / "float.tif")[0, :, 0], [0, 128, 255, 0])


def test_first_of_several_frames_is_used_and_said(tmp_path: Path) -> None:
    first, second = picture(seed=1), picture(seed=2)
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    photo = load_image(tmp_path / "pages.tif")
    np.testing.assert_array_equal(np.asarray(photo.image), np.asarray(first))
    assert "2 frames, only the first is used" in photo.notes[0]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    stream = io.TextIOWrapper(io.BytesIO(buffer.getvalue()))
    monkeypatch.setattr(sys, "stdin", stream)
    np.testing.assert_array_equal(np.asarray(load_image("-").image), np.asarray(picture()))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(ImageError, match="standard input: empty"):
        load_image("-")


def test_missing_empty_truncated_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="not a file"):
        load_image(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty\.jpg: empty file"):
        load_image(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("not a picture at all")
    with pytest.raises(ImageError, match="not a picture; expected JPEG"):
        load_image(tmp_path / "text.jpg")
    picture(300, 200).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:800])
    with pytest.raises(ImageError, match=r"cut\.jpg: damaged picture \(.*truncated"):
        load_image(tmp_path / "cut.jpg")


def test_postscript_is_never_interpreted(tmp_path: Path) -> None:
    (tmp_path / "script.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(ImageError, match="not a picture"):
        load_image(tmp_path / "script.eps")


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is that large and has almost no data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(12_000, 9_000), (60_000, 60_000)])
def test_decompression_bomb_is_refused_before_decoding(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(width, height))
    with pytest.raises(ImageError, match="--max-pixels"):
        load_image(tmp_path / "bomb.png")


def test_limit_of_pixels_is_that_which_was_given(photo: Path) -> None:
    assert load_image(photo, max_pixels=60 * 40).image.size == (60, 40)
    with pytest.raises(ImageError, match="60 x 40 pixels, the limit is 2399"):
        load_image(photo, max_pixels=60 * 40 - 1)
