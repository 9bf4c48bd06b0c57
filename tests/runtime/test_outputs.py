"""Result files, each read back by something that did not write it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.runtime.conftest import picture
from tinysam.runtime.atomic import open_atomically
from tinysam.runtime.errors import ImageError, OutputError
from tinysam.runtime.masks.rle import Rle
from tinysam.runtime.outputs import FORMATS, pictures
from tinysam.runtime.outputs.pictures import color, draw_overlay, lighter
from tinysam.runtime.outputs.write import write_result
from tinysam.runtime.results import MaskRecord, Result

SIZE = (90, 120)


def masks() -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    large = (x - 50) ** 2 + (y - 40) ** 2 < 35**2
    small = (abs(x - 60) < 12) & (abs(y - 50) < 8)
    corner = x + y > 190
    return np.stack([large, small, corner])


@pytest.fixture
def result() -> Result:
    first, second, third = (Rle.encode(mask) for mask in masks())
    records = [
        MaskRecord(first, 0.9, 0.95, point_coords=((50.0, 40.0), (5.0, 5.0)), point_labels=(1, 0)),
        MaskRecord(second, 0.8, 0.85, box=(48.0, 42.0, 72.0, 58.0)),
        MaskRecord(third, 0.7, 0.75, point_coords=((118.0, 88.0),), point_labels=(1,), crop_box=(0, 0, 120, 90)),
    ]
    return Result("photo.jpg", SIZE, records, "disc-64", "onnx", "fp32", {"encoder": 1.25}, ("a note",))


def write(result: Result, folder: Path, *formats: str) -> list[Path]:
    return write_result(result, picture(SIZE[1], SIZE[0]), folder, "photo", formats)


def test_every_format_has_its_documented_name(result: Result, tmp_path: Path) -> None:
    written = write(result, tmp_path, *FORMATS)
    assert sorted(path.name for path in written) == sorted(path.name for path in tmp_path.iterdir())
    assert {path.name for path in written} == {
        "photo.overlay.jpg",
        "photo.mask-001.png",
        "photo.mask-002.png",
        "photo.mask-003.png",
        "photo.labels.png",
        "photo.coco.json",
        "photo.polygons.json",
        "photo.labelme.json",
        "photo.npz",
    }


def test_one_bit_masks(result: Result, tmp_path: Path) -> None:
    for path, mask in zip(write(result, tmp_path, "mask"), masks(), strict=True):
        with Image.open(path) as image:
            assert image.mode == "1"
            np.testing.assert_array_equal(np.asarray(image), mask)


def test_labels_are_the_number_of_the_last_mask(result: Result, tmp_path: Path) -> None:
    expected = np.zeros(SIZE, np.uint8)
    for number, mask in enumerate(masks(), start=1):
        expected[mask] = number
    (path,) = write(result, tmp_path, "label")
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), expected)
        assert image.convert("RGB").getpixel((60, 50)) == color(1)


def test_labels_of_many_masks_have_16_bits(tmp_path: Path) -> None:
    dot = np.zeros((20, 20), np.bool_)
    records = []
    for index in range(300):
        dot[:] = False
        dot.flat[index] = True
        records.append(MaskRecord(Rle.encode(dot), 1.0, 1.0))
    many = Result("many.png", (20, 20), records, "disc-64", "onnx", "fp32")
    (path,) = write_result(many, picture(20, 20), tmp_path, "many", ["label"])
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image).ravel()[:300], np.arange(1, 301))


def test_coco_json_is_read_by_pycocotools(result: Result, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    (path,) = write(result, tmp_path, "json")
    dataset = coco.COCO(path)
    (image,) = dataset.loadImgs(dataset.getImgIds())
    assert (image["height"], image["width"], image["file_name"]) == (*SIZE, "photo.jpg")
    annotations = dataset.loadAnns(dataset.getAnnIds())
    for annotation, mask in zip(annotations, masks(), strict=True):
        np.testing.assert_array_equal(dataset.annToMask(annotation).astype(bool), mask)
        y, x = np.nonzero(mask)
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
    assert annotations[0]["point_labels"] == [1, 0]
    assert annotations[1]["box"] == [48, 42, 72, 58]
    assert annotations[2]["predicted_iou"] == pytest.approx(0.7)
    info = json.loads(path.read_text())["info"]
    assert (info["model"], info["notes"], info["timing_ms"]) == ("disc-64", ["a note"], {"encoder": 1.25})


def test_coco_polygons_are_filled_by_pycocotools(result: Result, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    (path,) = write(result, tmp_path, "polygons")
    dataset = coco.COCO(path)
    for annotation, mask in zip(dataset.loadAnns(dataset.getAnnIds()), masks(), strict=True):
        filled = dataset.annToMask(annotation).astype(bool)
        assert (filled & mask).sum() / (filled | mask).sum() > 0.93


def test_polygons_of_a_ring_keep_its_hole_and_say_their_own_area(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(x - 60, y - 45)
    ring = (distance < 40) & (distance > 20)
    record = MaskRecord(Rle.encode(ring), 0.9, 0.9)
    (path,) = write(Result("ring.jpg", SIZE, [record], "disc-64", "onnx", "fp32"), tmp_path, "polygons")
    dataset = coco.COCO(path)
    (annotation,) = dataset.loadAnns(dataset.getAnnIds())
    filled = dataset.annToMask(annotation).astype(bool)
    assert (filled & ring).sum() / (filled | ring).sum() > 0.95
    assert annotation["area"] == pytest.approx(filled.sum(), rel=0.01)
    rows, columns = np.nonzero(filled)
    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    np.testing.assert_allclose(annotation["bbox"], box, atol=1)


@pytest.mark.parametrize("place", ["out", "photos", "photos/deep/er", "link"])
def test_labelme_finds_the_photograph_from_its_file(result: Result, tmp_path: Path, place: str) -> None:
    photo = tmp_path / "photos" / "a photo.jpg"
    photo.parent.mkdir()
    picture(SIZE[1], SIZE[0]).save(photo)
    if place == "link":
        (tmp_path / "far" / "away").mkdir(parents=True)
        (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    image = picture(SIZE[1], SIZE[0])
    (path,) = write_result(result, image, tmp_path / place, "photo", ["labelme"], photo)
    found = path.parent / json.loads(path.read_text())["imagePath"]  # as LabelMe does
    assert found.samefile(photo)


def test_labelme_names_the_whole_path_of_a_photograph_on_another_drive(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_drive(*_: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", other_drive)
    image = picture(SIZE[1], SIZE[0])
    (path,) = write_result(result, image, tmp_path, "photo", ["labelme"], tmp_path / "photo.jpg")
    assert json.loads(path.read_text())["imagePath"] == (tmp_path.resolve() / "photo.jpg").as_posix()


def test_overlay_of_a_very_wide_photograph_is_refused_in_words(tmp_path: Path) -> None:
    size = (2, 65501)
    wide = Result("wide.png", size, [MaskRecord(Rle.encode(np.ones(size, np.bool_)), 1, 1)], "disc-64", "onnx", "fp32")
    with pytest.raises(ImageError, match="at most 65500 a side; ask for other formats"):
        write_result(wide, Image.new("RGB", (65501, 2)), tmp_path, "wide", ["overlay"])
    assert list(tmp_path.iterdir()) == []


def test_labelme_document(result: Result, tmp_path: Path) -> None:
    draw = pytest.importorskip("skimage.draw")
    (path,) = write(result, tmp_path, "labelme")
    document = json.loads(path.read_text())
    assert (document["imageHeight"], document["imageWidth"], document["imagePath"]) == (*SIZE, "photo.jpg")
    for shape, mask in zip(document["shapes"], masks(), strict=True):
        drawn = draw.polygon2mask(SIZE, np.array(shape["points"])[:, ::-1] - 0.5)
        assert (drawn & mask).sum() / (drawn | mask).sum() > 0.93


def test_npz(result: Result, tmp_path: Path) -> None:
    (path,) = write(result, tmp_path, "npz")
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["masks"], masks())
        np.testing.assert_array_equal(arrays["areas"], masks().sum(axis=(1, 2)))
        np.testing.assert_allclose(arrays["predicted_ious"], [0.9, 0.8, 0.7], rtol=1e-6)
        assert arrays["bboxes"][1].tolist() == [49, 43, 23, 15]
        assert json.loads(str(arrays["info"]))["model"] == "disc-64"


def test_no_masks_at_all_is_fine(tmp_path: Path) -> None:
    empty = Result("photo.jpg", SIZE, [], "disc-64", "onnx", "fp32")
    write(empty, tmp_path, *FORMATS)
    with np.load(tmp_path / "photo.npz") as arrays:
        assert arrays["masks"].shape == (0, *SIZE)
    assert json.loads((tmp_path / "photo.coco.json").read_text())["annotations"] == []


def test_overlay_tints_inside_and_leaves_outside(result: Result) -> None:
    before = picture(SIZE[1], SIZE[0])
    after = before.copy()
    draw_overlay(after, result)
    changed = np.any(np.asarray(before) != np.asarray(after), axis=-1)
    inside = masks().any(axis=0)
    assert changed[inside].mean() > 0.97
    # outside only the prompts are drawn: a negative point near the corner and the rim of the box
    assert changed[~inside].mean() < 0.08
    red, green, blue = after.getpixel((50, 40))  # type: ignore[misc]
    assert green > red
    assert green > blue  # the positive point
    red, green, blue = after.getpixel((5, 5))  # type: ignore[misc]
    assert red > green


def test_overlay_draws_empty_and_border_masks() -> None:
    full = MaskRecord(
        Rle.encode(np.ones(SIZE, np.bool_)), 1.0, 1.0, point_coords=((0, 0), (120, 90)), point_labels=(1, 1)
    )
    empty = MaskRecord(Rle.encode(np.zeros(SIZE, np.bool_)), 0.0, 0.0, box=(-5, -5, 300, 300))
    bare = MaskRecord(Rle.encode(np.zeros(SIZE, np.bool_)), 0.0, 0.0)

    def changed(*masks: MaskRecord) -> np.ndarray:
        drawn = picture(SIZE[1], SIZE[0])
        draw_overlay(drawn, Result("x", SIZE, list(masks), "m", "onnx", "fp32"))
        return np.any(np.asarray(drawn) != np.asarray(picture(SIZE[1], SIZE[0])), axis=-1)

    assert not changed(bare).any()
    assert not changed(empty).any()  # all sides of its box lie outside of the picture
    assert changed(full, empty).mean() > 0.95


def test_first_colours_are_easy_to_tell_apart() -> None:
    colors = np.array([color(index) for index in range(12)], np.float64)
    distance = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 1e3 * np.eye(12)
    assert distance.min() > 60
    assert len({color(index) for index in range(100)}) == 100


def write_halves(stream: IO[bytes]) -> None:
    stream.write(b"half")
    stream.write("not bytes")  # type: ignore[arg-type]


def test_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(TypeError), open_atomically(path) as stream:
        write_halves(stream)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with open_atomically(path) as stream:
        stream.write(b"new")
    assert path.read_text() == "new"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    real_open = Path.open

    def full(self: Path, *args: object, **kwargs: object) -> object:
        return real_open(Path("/dev/full"), "wb", buffering=0) if ".partial" in self.name else real_open(self)

    monkeypatch.setattr(Path, "open", full)
    with (
        pytest.raises(OutputError, match=r"cannot write .*result\.json: No space left on device"),
        open_atomically(path) as s,
    ):
        s.write(b"x")
    assert not path.exists()


def test_folder_that_is_a_file_is_said(tmp_path: Path, result: Result) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write .*choose another folder with --out"):
        write(result, tmp_path / "out", "json")


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A folder that this user may not write to. Root may write anywhere, so it becomes another user."""
    tmp_path.chmod(0o500)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield tmp_path
    os.seteuid(before)


def test_unwritable_folder_is_said(unwritable: Path, result: Result) -> None:
    with pytest.raises(OutputError, match="Permission denied"):
        write(result, unwritable, "json")


def eroded(mask: np.ndarray, pixels: int) -> np.ndarray:
    """By SciPy, a pixel at a time: every other step takes the diagonal neighbours, too."""
    for step in range(pixels):
        mask = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(2, 1 + step % 2))
    return mask


@pytest.mark.parametrize("pixels", [1, 2, 3, 7, 12])
def test_masks_are_eroded_by_an_octagon(pixels: int) -> None:
    noise = np.random.default_rng(pixels).random((70, 55)) < 0.995
    for mask in (noise, *masks(), np.ones((1, 9), np.bool_)):
        np.testing.assert_array_equal(pictures._eroded(mask, pixels), eroded(mask, pixels))


@pytest.mark.parametrize("count", [1, 3, 300])
def test_overlay_is_what_one_mask_after_the_other_gives(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_STRIP_PIXELS", 0)
    shown = [masks()[number % 3] for number in range(count)]
    records = [MaskRecord(Rle.encode(mask), 0.9, 0.9, crop_box=(0, 0, 120, 90)) for mask in shown]
    drawn = picture(SIZE[1], SIZE[0])
    expected = np.asarray(drawn).astype(np.float64)
    draw_overlay(drawn, Result("x", SIZE, records, "m", "onnx", "fp32"))
    covered = np.zeros(SIZE, np.bool_)
    for number in reversed(range(count)):
        mask, tint = shown[number], np.array(color(number))
        visible, core = mask & ~covered, eroded(mask, 1)
        covered |= mask
        expected[visible] += (tint - expected[visible]) * round(255 * 0.42) / 255
        shadow, line = visible & core & ~eroded(core, 1), visible & ~core
        expected[shadow] *= 1 - round(255 * 0.25) / 255
        expected[line] = lighter(color(number), 0.55)
    assert np.abs(np.asarray(drawn) - expected).max() <= 1.01  # two roundings


def test_overlay_does_not_depend_on_the_strips_it_is_drawn_in(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, narrow = picture(SIZE[1], SIZE[0]), picture(SIZE[1], SIZE[0])
    draw_overlay(whole, result)
    monkeypatch.setattr(pictures, "_STRIP_COLUMNS", 7)
    monkeypatch.setattr(pictures, "_STRIP_PIXELS", 0)
    draw_overlay(narrow, result)
    np.testing.assert_array_equal(np.asarray(narrow), np.asarray(whole))
