"""Image sets: where they come from, what is left out, and that the choice repeats."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.images import CalibrationImage, ImageSet, difference_hash, judged_images, load_image_set


def picture(seed: int, size: tuple[int, int] = (90, 60)) -> Image.Image:
    """Smooth noise, different for every seed."""
    noise = np.random.default_rng(seed).integers(0, 255, (9, 12, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for i in range(6):
        picture(i).save(folder / ("deep" if i % 2 else ".") / f"{i}.png")
    return folder


def names(images: ImageSet) -> set[str]:
    return {image.name for image in images.images}


def test_a_folder_is_searched_deeply(photos: Path) -> None:
    assert names(load_image_set(photos)) == {f"{i}.png" for i in range(6)}


def test_a_glob_a_list_and_a_coco_json_name_files(photos: Path) -> None:
    assert names(load_image_set(photos / "**" / "[0-3].png")) == {f"{i}.png" for i in range(4)}
    (photos / "list.txt").write_text("0.png\n\ndeep/1.png\n2.png\ndeep/3.png\n")
    assert names(load_image_set(photos / "list.txt")) == {f"{i}.png" for i in range(4)}
    entries = [{"file_name": f"deep/{i}.png"} for i in (1, 3, 5)] + [{"file_name": "0.png"}]
    (photos / "coco.json").write_text(json.dumps({"images": entries}))
    assert names(load_image_set(photos / "coco.json")) == {"0.png", "1.png", "3.png", "5.png"}


def test_the_choice_depends_on_the_seed_alone(photos: Path) -> None:
    first, again, other = (load_image_set(photos, 4, seed) for seed in (1, 1, 2))
    assert first.sha256 == again.sha256
    assert first.sha256 != other.sha256
    assert len(first.images) == 4


def test_what_cannot_be_used_is_left_out_and_counted(photos: Path) -> None:
    (photos / "empty.png").touch()
    (photos / "text.jpg").write_text("no picture")
    (photos / "cut.png").write_bytes((photos / "0.png").read_bytes()[:200])
    Image.new("RGB", (40, 40), (9, 90, 200)).save(photos / "blue.png")
    picture(0, (180, 120)).save(photos / "zero-again.jpg", quality=80)
    images = load_image_set(photos, 32)
    assert len(images.images) == 6
    assert images.skipped == {"unreadable": 3, "one colour": 1, "near-duplicate": 1}


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_usable_images_are_an_error(tmp_path: Path, count: int) -> None:
    for i in range(count):
        picture(i).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(CalibrationError, match=rf"{count} usable, at least 4 needed \(1 unreadable\)"):
        load_image_set(tmp_path)


def test_nothing_found_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"nothing found; give a folder of photographs, a glob"):
        load_image_set(tmp_path / "*.jpg")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(CalibrationError, match="not a COCO json"):
        load_image_set(tmp_path / "bad.json")


def test_pictures_are_upright_rgb_and_shrunk(tmp_path: Path) -> None:
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    turned = picture(9, (300, 100))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    turned.save(tmp_path / "turned.jpg", exif=exif)
    found = {image.name: image.pixels.shape for image in load_image_set(tmp_path, long_side=120).images}
    assert found["turned.jpg"] == (120, 40, 3)
    assert found["0.png"] == (60, 90, 3)


def test_bundled_photographs_fill_the_default_set() -> None:
    images = load_image_set(None, 32, long_side=256)
    assert len(images.images) == 32
    assert len({image.pixels.tobytes() for image in images.images}) == 32
    assert all(max(image.pixels.shape) <= 256 for image in images.images)


@pytest.mark.parametrize(("pictures", "count"), [(32, 40), (8, 16), (4, 16), (10, 40)])
def test_judged_views_are_of_every_corner_and_half_of_them_mirrored(pictures: int, count: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (20, 30, 3)).astype(np.uint8)
    images = ImageSet("here", tuple(CalibrationImage(f"{i}", image, f"photograph {i % 3}") for i in range(pictures)))
    crops = {(y, x): image[8 * y : 12 + 8 * y, 12 * x : 18 + 12 * x] for y in (0, 1) for x in (0, 1)}
    known = {crop.tobytes(): (corner, False) for corner, crop in crops.items()}
    known |= {crop[:, ::-1].tobytes(): (corner, True) for corner, crop in crops.items()}
    views = judged_images(images, count)
    found = [known[view.pixels.tobytes()] for view in views]
    assert len(found) == len({view.name for view in views}) == count
    assert {corner: sum(c == corner for c, _ in found) for corner in crops} == dict.fromkeys(crops, count // 4)
    assert abs(sum(mirrored for _, mirrored in found) - count / 2) <= 2
    assert {view.photograph for view in views} == {f"photograph {i}" for i in range(3)}


def test_difference_hash_tells_pictures_apart_but_not_sizes() -> None:
    small, large, other = (
        difference_hash(np.asarray(image)) for image in (picture(0), picture(0, (360, 240)), picture(1))
    )
    assert bin(small ^ large).count("1") <= 4
    assert bin(small ^ other).count("1") > 10
