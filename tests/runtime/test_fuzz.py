"""Damaged pictures, manifests and prompts, arrays and names of any kind: an exit code and clean lines, no traceback.

1350 cases.
"""

import io
import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from tests.runtime import disc_model
from tests.runtime.conftest import picture
from tests.runtime.test_image import png_of_16_bit_colors, tiff_of_16_bit_colors
from tests.runtime.test_samples import wide_gamut
from tinysam.runtime import ImageError, cli, errors
from tinysam.runtime.manifest import FILE_NAME, sealed
from tinysam.runtime.samples import to_rgb
from tinysam.runtime.sources import find_sources
from tinysam.runtime.terminal import printable

CODES = {0, errors.EXIT_FAILED, errors.EXIT_USAGE, errors.EXIT_ARTIFACTS, errors.EXIT_ENGINE, errors.EXIT_OUTPUT}
PICTURES, MANIFESTS, PROMPTS, ARRAYS, NAMES = 400, 200, 150, 400, 200
_PARTS = 10
"""Each kind is cut into so many tests: a failure then names a part that runs in a second."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    old = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, old)


def check(arguments: list[str], what: str, capfd: pytest.CaptureFixture[str]) -> int:
    """Runs the command; a traceback, an unknown code or a line without the command's name is a failure."""
    try:
        code = cli.main(arguments)
    except SystemExit as exit_:
        code = int(str(exit_.code))
    _, err = capfd.readouterr()
    assert code in CODES, what
    lines = [line for line in err.splitlines() if not line.startswith((" ", "usage: "))]
    for line in lines:
        assert line.startswith("tinysam-run: "), f"{what}: {line}"
        assert len(line) < 1000
    assert bool(code) == any(": error: " in line for line in lines), f"{what}: {code} {err}"
    return code


def originals() -> list[tuple[str, bytes]]:
    """A small picture in every format that is read."""
    found = []
    for suffix, mode, options in (
        ("jpg", "RGB", {"quality": 80}),
        ("jpg", "RGB", {"quality": 80, "progressive": True}),
        ("jpg", "CMYK", {}),
        ("png", "RGB", {}),
        ("png", "P", {}),
        ("png", "I;16", {}),
        ("webp", "RGB", {}),
        ("tif", "RGB", {"compression": "tiff_lzw"}),
        ("tif", "F", {}),
        ("gif", "P", {}),
        ("bmp", "RGB", {}),
        ("ppm", "RGB", {}),
        ("tga", "RGB", {}),
        ("jp2", "RGB", {}),
        ("png", "LA", {}),
        ("png", "1", {}),
        ("png", "RGBA", {"icc_profile": wide_gamut()}),
        ("jpg", "RGB", {"quality": 80, "icc_profile": wide_gamut()}),
        ("jpg", "L", {"progressive": True}),
        ("tif", "CMYK", {"compression": "tiff_adobe_deflate"}),
        ("tif", "LAB", {}),
        ("tif", "I;16", {}),
        *([("avif", "RGBA", {})] if features.check("avif") else []),
    ):
        buffer = io.BytesIO()
        image = picture(30, 20)
        image = image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6
        extra: dict[str, Any] = {"exif": exif} if suffix in ("jpg", "webp") and mode == "RGB" else {}
        image.save(buffer, Image.registered_extensions()[f".{suffix}"], **options, **extra)
        found.append((suffix, buffer.getvalue()))
    deep = np.asarray(picture(30, 20)).astype(np.uint16) * 16
    found += [("png", png_of_16_bit_colors(deep)), ("tif", tiff_of_16_bit_colors(deep, ">"))]
    return found


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut out, repeated, or the end missing."""
    changed = bytearray(data)
    kind = rng.choice(["flip", "head", "cut", "remove", "repeat", "zero"])
    at = rng.randrange(len(changed))
    if kind == "flip":
        for _ in range(rng.choice([1, 3, 30])):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == "head":
        for _ in range(4):
            changed[rng.randrange(min(64, len(changed)))] = rng.randrange(256)
    elif kind == "cut":
        del changed[at:]
    elif kind == "remove":
        del changed[at : at + rng.choice([1, 7, 100])]
    elif kind == "repeat":
        changed[at:at] = changed[at : at + 50] * rng.choice([1, 20])
    else:
        changed[at : at + 20] = bytes(len(changed[at : at + 20]))
    return bytes(changed)


@pytest.mark.parametrize("part", range(_PARTS))
def test_damaged_pictures(disc_artifacts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], part: int) -> None:
    rng = random.Random(part)
    sources = originals()
    codes = []
    for index in range(PICTURES // _PARTS):
        suffix, data = sources[index % len(sources)]
        path = tmp_path / f"picture.{suffix}"
        path.write_bytes(damaged(data, rng))
        # "5,5" lies inside whatever is left of the picture, unless its size was damaged
        arguments = [str(path), "--model", str(disc_artifacts), "--point", "5,5", "--threads", "1"]
        codes.append(check(arguments, f"part {part} picture {index}", capfd))
    assert 0 in codes
    assert errors.EXIT_FAILED in codes


STRANGE: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    10**30,
    1.5,
    float("nan"),
    "",
    "x",
    "../x",
    [],
    {},
    [None],
    {"a": 1},
    "\ud800",
]


def mutate(data: Any, rng: random.Random) -> None:
    """Changes one place of nested JSON: another value, a missing entry, another name."""
    place, key = data, rng.choice(list(data))
    while isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.85:
        place = place[key]
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
    action = rng.choice(["value", "value", "drop", "rename"])
    if action == "value":
        place[key] = rng.choice(STRANGE)
    elif action == "drop":
        del place[key]
    elif isinstance(place, dict):
        place[f"{key}x"] = place.pop(key)


@pytest.mark.parametrize("part", range(_PARTS))
def test_damaged_manifests(
    disc_artifacts: Path, photo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], part: int
) -> None:
    rng = random.Random(part)
    folder = tmp_path / "model"
    shutil.copytree(disc_artifacts, folder)
    text = (folder / FILE_NAME).read_text()
    codes = []
    for index in range(MANIFESTS // _PARTS):
        data = json.loads(text)
        for _ in range(rng.choice([1, 1, 3])):
            mutate(data, rng)
        written = sealed(data)
        if rng.random() < 0.15:
            written = damaged(written.encode(), rng).decode("latin-1")
        (folder / FILE_NAME).write_text(written, encoding="utf-8")
        arguments = [str(photo), "--model", str(folder), "--points-per-side", "2", "--threads", "1"]
        codes.append(check(arguments, f"part {part} manifest {index}", capfd))
    assert errors.EXIT_ARTIFACTS in codes


@pytest.mark.parametrize("part", range(_PARTS))
def test_damaged_prompts(disc_artifacts: Path, photo: Path, capfd: pytest.CaptureFixture[str], part: int) -> None:
    rng = random.Random(part)
    pieces = [
        "1",
        "0",
        "-3",
        "30.5",
        "1e3",
        "1e400",
        "nan",
        "inf",
        "",
        " ",
        "x",
        "59",
        "60",
        "61",
        "0x1",
        "٣",
        ",",
        "-",
        ";",
        "1 2",
        "-.5",
        "[",
        "\ud800",
    ]
    codes = []
    for index in range(PROMPTS // _PARTS):
        arguments = [str(photo), "--model", str(disc_artifacts), "--format", rng.choice(["json", "overlay", "npz"])]
        for _ in range(rng.choice([1, 1, 2, 4])):
            option = rng.choice(["--point", "--point", "--box"])
            count = rng.choice([2, 2, 3]) if option == "--point" else 4
            plain = [str(rng.choice([0, 1, 9, 20, 39])) for _ in range(count)]
            if count == 3:
                plain[2] = rng.choice(["0", "1"])
            if rng.random() < 0.5:
                plain[rng.randrange(count)] = rng.choice(pieces)
            arguments.append(f"{option}={','.join(plain)}")
        codes.append(check(arguments, f"part {part} prompt {index}: {arguments[4:]}", capfd))
    assert 0 in codes
    assert {errors.EXIT_USAGE, errors.EXIT_FAILED} & set(codes)


def test_damaged_graphs(photo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A flipped byte anywhere in a graph is found by its hash, before an engine sees it."""
    folder = disc_model.build(tmp_path)
    rng = random.Random(0)
    for name in ("encoder.int8.onnx", "decoder.int8.onnx"):
        data = (folder / name).read_bytes()
        for index in range(20):
            (folder / name).write_bytes(damaged(data, rng))
            if (folder / name).read_bytes() == data:
                continue
            code = check([str(photo), "--model", str(folder), "--point", "5,5"], f"{name} {index}", capfd)
            assert code == errors.EXIT_ARTIFACTS
        (folder / name).write_bytes(data)


SHAPES = [
    (),
    (5,),
    (5, 7),
    (5, 7, 1),
    (5, 7, 2),
    (5, 7, 3),
    (5, 7, 4),
    (5, 7, 9),
    (1, 1),
    (0, 3, 3),
    (3, 5, 7),
    (2, 3, 4, 5),
]
DTYPES = (
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32"),
    *("float64", "complex64", "U3", "object"),
)
ODD_SAMPLES = [0, 1, -1, 255, 256, 4095, 65535, -9999, 2.0**31, 2.0**63, 1e-30, 1e30, np.nan, np.inf, -np.inf]


def odd_array(rng: np.random.Generator) -> np.ndarray:
    """An array of any shape, dtype and range, with a few odd samples."""
    shape, dtype = SHAPES[rng.integers(len(SHAPES))], DTYPES[rng.integers(len(DTYPES))]
    with np.errstate(all="ignore"):
        values = rng.normal(rng.choice([0, 100, -5, 1e4]), rng.choice([0, 1, 50, 1e5]), shape)
        for _ in range(rng.integers(4) if values.size else 0):
            values.flat[rng.integers(values.size)] = ODD_SAMPLES[rng.integers(len(ODD_SAMPLES))]
        return values.astype(dtype)


def outcome(array: np.ndarray, image_format: str) -> str:
    """What is said of an array; empty if it is a picture without further words."""
    try:
        converted = to_rgb(array, image_format)
    except ImageError as error:
        return f"refused: {error}"
    assert (converted.image.mode, converted.image.size) == ("RGB", array.shape[1::-1])
    return "; ".join(converted.notes)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_arrays_of_any_kind_are_a_picture_or_one_sentence() -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for index in range(ARRAYS):
        array = odd_array(rng)
        sentence = outcome(array, str(rng.choice(["RGB", "BGR"])))
        assert "\n" not in sentence, index
        refused += sentence.startswith("refused")
    assert 50 < refused < ARRAYS - 100


LETTERS = [
    "a",
    "B",
    ".",
    " ",
    "-",
    "_",
    "\n",
    "\t",
    "\x1b",
    "*",
    "[",
    "]",
    "?",
    "{",
    "}",
    "%",
    "'",
    "\\",
    "\u00e9",
    "e\u0301",
    "\u6f22",
    "\U0001f431",
    "\udce9",
    "\u202e",
    "~",
]


def test_names_of_any_kind_get_names_of_results_of_their_own(tmp_path: Path) -> None:
    rng = random.Random(0)
    names = set()
    while len(names) < NAMES:
        stem = "".join(rng.choice(LETTERS) for _ in range(rng.choice([1, 2, 3, 40, 70])))
        name = f"{stem}.{rng.choice(['png', 'PNG', 'jpg'])}"
        if len(os.fsencode(name)) < 256 and not name.startswith("."):
            names.add(name)
            (tmp_path / name).write_bytes(b"x")
    sources = find_sources([str(tmp_path)]).pictures
    assert {Path(source.path).name for source in sources} == names
    stems = [source.stem for source in sources]
    assert len({stem.casefold() for stem in stems}) == NAMES
    for source in sources:
        (tmp_path / f".{source.stem}.mask-001.png.1234567.partial").touch()
        assert printable(source.path).isprintable()
    assert [source.stem for source in find_sources([source.path for source in sources]).pictures] == stems
