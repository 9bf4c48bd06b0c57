"""Reading pictures: every mode becomes upright RGB; damage becomes one clear error."""

import io
import os
import re
import struct
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from tests.runtime.conftest import picture
from tinysam.runtime import ImageError
from tinysam.runtime.image import SUFFIXES, load_image


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


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of_16_bit_colors(samples: np.ndarray) -> bytes:
    """A PNG file of uint16 (height, width, bands), which Pillow cannot write."""
    height, width, bands = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def tiff_of_16_bit_colors(samples: np.ndarray, order: str) -> bytes:
    """An uncompressed TIFF file of uint16 (height, width, 3) in byte order `<` or `>`."""
    height, width, _ = samples.shape
    data = samples.astype(f"{order}u2").tobytes()
    bits = 8 + len(data)
    end = bits + 6
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits), (259, 4, 1, 1), (262, 4, 1, 2)]
    entries += [(273, 4, 1, 8), (277, 4, 1, 3), (278, 4, 1, height), (279, 4, 1, len(data))]
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(struct.pack(f"{order}HHII", *e) for e in entries)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", end)
    return head + data + struct.pack(f"{order}HHH", 16, 16, 16) + directory + bytes(4)


@pytest.mark.parametrize("depth", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["png", "png with alpha", "tif <", "tif >"])
def test_16_bit_colours_keep_their_brightness_whatever_their_depth(tmp_path: Path, depth: int, kind: str) -> None:
    colors = np.asarray(picture())
    samples = np.rint(colors / 255 * (2**depth - 1)).astype(np.uint16)
    if kind == "png with alpha":
        samples = np.dstack([samples, np.full_like(samples[..., 0], 65535)])
    data = png_of_16_bit_colors(samples) if "png" in kind else tiff_of_16_bit_colors(samples, kind[-1])
    path = tmp_path / "deep.bin"
    path.write_bytes(data)
    np.testing.assert_allclose(pixels(path), colors, atol=1)
    assert "scaled to 8 bits" in load_image(path).notes[0]


@pytest.mark.parametrize("depth", [10, 12, 14, 16])
@pytest.mark.parametrize("dark", [1, 3])
def test_16_bit_grey_with_transparency_is_read_as_without(tmp_path: Path, depth: int, dark: int) -> None:
    grey = np.asarray(picture().convert("L")) // dark
    samples = np.rint(grey / 255 * (2**depth - 1)).astype(np.uint16)
    opaque = np.full_like(samples, 65535)
    (tmp_path / "deep.png").write_bytes(png_of_16_bit_colors(np.dstack([samples, opaque])))
    Image.fromarray(samples).save(tmp_path / "plain.png")
    deep, plain = load_image(tmp_path / "deep.png"), load_image(tmp_path / "plain.png")
    np.testing.assert_array_equal(np.asarray(deep.image), np.asarray(plain.image))
    assert deep.notes == plain.notes
    half = np.where(np.arange(samples.shape[1]) < samples.shape[1] // 2, 0, opaque).astype(np.uint16)
    (tmp_path / "half.png").write_bytes(png_of_16_bit_colors(np.dstack([samples, half])))
    assert (pixels(tmp_path / "half.png")[:, : samples.shape[1] // 2] == 255).all()


def test_tiff_files_that_pillow_gets_wrong_or_does_not_open(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    colors = np.asarray(picture())
    grey = colors[..., 0]
    near_infrared = 255 - grey

    def read(samples: np.ndarray, **options: object) -> tuple[np.ndarray, str]:
        tifffile.imwrite(tmp_path / "a.tif", samples, **options)
        photo = load_image(tmp_path / "a.tif")
        return np.asarray(photo.image), " ".join(photo.notes)

    rgb, said = read(np.dstack([colors, near_infrared, grey]), photometric="minisblack", planarconfig="contig")
    np.testing.assert_array_equal(rgb, colors)
    assert "5 bands, only the first three" in said
    four = np.dstack([colors, near_infrared])
    for options in (
        {"photometric": "minisblack", "planarconfig": "contig"},
        {"photometric": "rgb", "extrasamples": ["unspecified"]},
        {"photometric": "minisblack", "planarconfig": "contig", "tile": (16, 16)},
    ):
        np.testing.assert_array_equal(read(four, **options)[0], colors)
    np.testing.assert_array_equal(
        read(np.moveaxis(four, 2, 0), photometric="minisblack", planarconfig="separate")[0], colors
    )
    for dtype in (np.float16, np.float32, np.float64):
        rgb, said = read((colors / 255).astype(dtype), photometric="rgb")
        np.testing.assert_allclose(rgb, colors, atol=1)
        assert np.dtype(dtype).name in said
    rgb, said = read((grey.astype(np.int16) - 128).astype(np.int8))
    np.testing.assert_array_equal(rgb[..., 0], grey)
    assert "int8" in said
    rgb, said = read(grey.astype(np.uint32) * 0x01010101)
    np.testing.assert_allclose(rgb[..., 0], grey, atol=1)
    assert "uint32" in said
    with pytest.raises(ImageError, match="the limit is 100"):
        load_image(tmp_path / "a.tif", max_pixels=100)


def test_tiff_file_of_many_bands_without_tifffile_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bands.tif").write_bytes(b"II*\0" + struct.pack("<IH", 8, 0) + bytes(60))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImageError, match="pip install tifffile"):
        load_image(tmp_path / "bands.tif")


@pytest.mark.parametrize("suffix", ["avif", "jfif", "jpe"])
def test_photographs_under_newer_and_older_names(tmp_path: Path, suffix: str) -> None:
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    assert f".{suffix}" in SUFFIXES
    picture().save(tmp_path / f"a.{suffix}", format="AVIF" if suffix == "avif" else "JPEG")
    assert np.abs(pixels(tmp_path / f"a.{suffix}").astype(np.float32) - np.asarray(picture())).mean() < 8


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_heic_photographs_need_one_more_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brand: bytes) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(99))
    with pytest.raises(ImageError, match=r"a\.heic: HEIC pictures need pillow-heif: pip install pillow-heif"):
        load_image(tmp_path / "a.heic")


def test_preview_in_a_raw_file_is_said(tmp_path: Path) -> None:
    picture().save(tmp_path / "raw.dng", "TIFF", tiffinfo={254: 1})
    assert "only its preview of 60 x 40 pixels" in load_image(tmp_path / "raw.dng").notes[0]


def test_named_pipe_is_read_like_standard_input(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(buffer.getvalue(),))
    writer.start()
    np.testing.assert_array_equal(pixels(tmp_path / "pipe"), np.asarray(picture()))
    writer.join()


JPEGS: list[dict[str, Any]] = [
    {"quality": 92},
    {"progressive": True},
    {"restart_marker_rows": 1},
    {"subsampling": 0, "optimize": True},
]


@pytest.mark.parametrize("options", JPEGS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_without_its_end_marker_is_used_and_said(tmp_path: Path, mode: str, options: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (11, 14, 4 if mode == "CMYK" else 3), dtype=np.uint8)
    source = Image.fromarray(noise, mode if mode == "CMYK" else "RGB").resize((150, 90), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    source.convert(mode).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    whole, path = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    whole.write_bytes(data)
    for ending in (b"", b"\xff", bytes(3), bytes(5000)):
        path.write_bytes(data[:-2] + ending)
        np.testing.assert_array_equal(pixels(path), pixels(whole))
        if len(ending) != 3:  # a few zeros look like an end to the decoder
            assert "the end of the file is missing, but the picture is whole" in load_image(path).notes
    for cut in (data[:-60], data[: len(data) // 2], data[: len(data) // 2] + bytes(5000)):
        path.write_bytes(cut)
        with pytest.raises(ImageError, match="damaged picture"):
            load_image(path)


def test_progressive_jpeg_without_its_last_scans_is_cut_off(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    picture(150, 90).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    for scan in re.finditer(rb"\xff\xda", data):
        (tmp_path / "cut.jpg").write_bytes(data[: data.rfind(b"\xff\xc4", 0, scan.start())])
        with pytest.raises(ImageError):
            load_image(tmp_path / "cut.jpg")


def test_other_formats_with_a_little_missing_at_the_end(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0132] = "2024:05:06 07:08:09"
    path = tmp_path / "cut"
    for kind, lost, options in (("PNG", 12, {}), ("PNG", 16, {}), ("GIF", 1, {}), ("WEBP", 5, {"exif": exif})):
        buffer = io.BytesIO()
        picture().save(buffer, kind, **options)
        path.write_bytes(buffer.getvalue())
        whole = pixels(path)
        path.write_bytes(buffer.getvalue()[:-lost])
        np.testing.assert_array_equal(pixels(path), whole)
        path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        with pytest.raises(ImageError):
            load_image(path)


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
