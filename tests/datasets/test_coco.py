import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tinysam.datasets.coco import DataError, read_coco


def rle_of(mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def write(folder: Path, segmentations: list, **extra) -> Path:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 20, "height": 10, "source": "s"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "segmentation": s, **extra} for i, s in enumerate(segmentations)
        ],
    }
    folder.mkdir(exist_ok=True)
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def square() -> np.ndarray:
    mask = np.zeros((10, 20), bool)
    mask[2:6, 3:9] = True
    return mask


def test_polygons_compressed_and_plain_run_lengths_mean_the_same(tmp_path, square):
    plain = {"size": [10, 20], "counts": [32, 4, 6, 4, 6, 4, 6, 4, 6, 4, 6, 4, 114]}
    polygon = [[3, 2, 9, 2, 9, 6, 3, 6]]
    (photo,) = read_coco(write(tmp_path / "set", [rle_of(square), plain, polygon]))
    for mask in photo.masks:
        assert np.array_equal(mask.decode().astype(bool), square)
        assert mask.box == (3, 2, 9, 6)
        assert mask.area == 24
    assert photo.path == tmp_path / "set/images/a.jpg"


@pytest.mark.parametrize(
    ("segmentation", "extra", "reason"),
    [
        (None, {}, "no mask"),
        ([], {}, "empty polygon"),
        ([[1, 2, 3, 4]], {}, "empty polygon"),
        (rle_of(np.zeros((10, 20))), {}, "empty mask"),
        (rle_of(np.ones((20, 10))), {}, "mask of another size than its image"),
        (rle_of(np.ones((10, 20))), {"iscrowd": 1}, "crowd region"),
        ({"size": [10, 20], "counts": [5, 3]}, {}, "damaged run lengths"),
        ({"size": [10, 20], "counts": [-5, 205]}, {}, "damaged run lengths"),
        ({"size": [10, 20], "counts": "garbage"}, {}, "damaged run lengths"),
    ],
)
def test_unusable_annotations_are_counted_and_skipped(tmp_path, square, caplog, segmentation, extra, reason):
    folder = write(tmp_path / "set", [segmentation, segmentation], **extra)
    content = json.loads((folder / "annotations.json").read_text())
    content["annotations"].append({"id": 9, "image_id": 1, "segmentation": rle_of(square)})
    (folder / "annotations.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        (photo,) = read_coco(folder)
    assert [mask.id for mask in photo.masks] == [9]
    assert f"2 x {reason}" in caplog.text


def test_a_set_without_usable_masks_is_refused(tmp_path):
    with pytest.raises(DataError, match="no photograph with a usable mask"):
        read_coco(write(tmp_path / "set", [None]))


def test_missing_and_damaged_annotation_files_are_named(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_coco(tmp_path)
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_coco(tmp_path)
    (tmp_path / "annotations.json").write_text("[]")
    with pytest.raises(DataError, match="no list of images"):
        read_coco(tmp_path)


@pytest.mark.parametrize("content", [{"images": [5]}, {"images": [{"id": 1}]}, {"images": [], "annotations": [5]}])
def test_files_that_are_not_coco_are_refused(tmp_path, content):
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="annotations.json: not COCO annotations"):
        read_coco(tmp_path)


def test_photographs_of_lvis_are_found_by_their_address(tmp_path, square):
    folder = write(tmp_path / "set", [rle_of(square)])
    content = json.loads((folder / "annotations.json").read_text())
    content["images"][0].pop("file_name")
    content["images"][0]["coco_url"] = "http://images.cocodataset.org/val2017/000000397133.jpg"
    (folder / "annotations.json").write_text(json.dumps(content))
    (photo,) = read_coco(folder)
    assert photo.path == folder / "images/val2017/000000397133.jpg"


def test_photographs_without_masks_are_listed_on_demand(tmp_path, square):
    folder = write(tmp_path / "set", [rle_of(square)])
    content = json.loads((folder / "annotations.json").read_text())
    content["images"].append({"id": 2, "file_name": "b.jpg", "width": 20, "height": 10})
    (folder / "annotations.json").write_text(json.dumps(content))
    assert [photo.id for photo in read_coco(folder)] == [1]
    assert [photo.id for photo in read_coco(folder, bare=True)] == [1, 2]


def tool(folder: Path, image: dict, file: str = "annotations.json", encode=str.encode, **annotation) -> Path:
    """A set of one photograph, `a.png` in `images/`, as a tool may write it."""
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (90, 60)).save(folder / "images" / "a.png")
    mask = {"id": 1, "image_id": image.get("id", 1), "category_id": 1, "segmentation": [[5, 5, 50, 5, 50, 40]]}
    content = {"images": [image], "annotations": [mask | annotation], "categories": [{"id": 1, "name": "o"}]}
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(encode(json.dumps(content, ensure_ascii=False)))
    return folder


BASE = {"id": 1, "file_name": "a.png", "width": 90, "height": 60}
NAMES = [
    *(
        "images/a.png",
        "images\\a.png",
        ".\\a.png",
        "/data/upload/3/a.png",
        "C:\\Users\\me\\set\\images\\a.png",
        "A.PNG",
    ),
    *("http://host:8080/data/a.png?d=1", "../../label-studio/data/a.png", "file:///home/me/a.png"),
]


@pytest.mark.parametrize("name", NAMES)
def test_file_names_as_tools_write_them_lead_to_the_photograph(tmp_path, name):
    (photo,) = read_coco(tool(tmp_path / "set", BASE | {"file_name": name}))
    assert photo.path == tmp_path / "set" / "images" / "a.png"
    assert (photo.width, photo.height) == (90, 60)


@pytest.mark.parametrize(
    ("image", "annotation", "file", "encode"),
    [
        ({"id": "9f-a"}, {}, "annotations.json", str.encode),
        ({"id": "7"}, {"image_id": 7}, "annotations.json", str.encode),
        ({}, {"id": "x1"}, "annotations.json", str.encode),
        ({"width": None, "height": None}, {}, "annotations.json", str.encode),
        ({"width": 90.0, "height": "60"}, {}, "annotations.json", str.encode),
        ({}, {}, "_annotations.coco.json", str.encode),
        ({}, {}, "result.json", str.encode),
        ({}, {}, "annotations/instances_default.json", str.encode),
        ({}, {}, "export-2024.json", str.encode),
        ({"source": "caf\u00e9"}, {}, "annotations.json", lambda text: b"\xef\xbb\xbf" + text.encode()),
        ({"source": "caf\u00e9"}, {}, "annotations.json", lambda text: text.encode("utf-16")),
        ({"source": "caf\u00e9"}, {}, "annotations.json", lambda text: text.encode("utf-16-le")),
        ({"source": "caf\u00e9"}, {}, "annotations.json", lambda text: text.encode("cp1252")),
        ({}, {"segmentation": [5, 5, 50, 5, 50, 40]}, "annotations.json", str.encode),
        ({}, {"segmentation": [[[5, 5], [50, 5], [50, 40]]]}, "annotations.json", str.encode),
        ({}, {"segmentation": [[5.0, 5.0, 50.0, 5.0, 50.0, 40.0, 7.0]]}, "annotations.json", str.encode),
    ],
)
def test_sets_as_tools_write_them_are_the_plain_one(tmp_path, image, annotation, file, encode):
    (plain,) = read_coco(tool(tmp_path / "plain", BASE))
    (photo,) = read_coco(tool(tmp_path / "set", BASE | image, file, encode, **annotation))
    assert photo.path.is_file()
    assert (photo.width, photo.height) == (90, 60)
    assert photo.masks[0].rle == plain.masks[0].rle
    assert isinstance(photo.id, int)
    assert photo.source == image.get("source", "")


def test_folders_of_coco_itself_and_several_files(tmp_path):
    folder = tmp_path / "coco"
    for split in ("train2017", "val2017"):
        tool(folder / split, BASE, "../annotations/instances_" + split + ".json")
        (folder / split / "images" / "a.png").rename(folder / split / "a.png")
        (folder / "annotations" / f"captions_{split}.json").write_text("{}")
    with pytest.raises(DataError, match=r"several annotation files \(annotations.instances_train2017.json, "):
        read_coco(folder)
    (photo,) = read_coco(folder / "annotations" / "instances_train2017.json")
    assert photo.path == folder / "train2017" / "a.png"
    (folder / "train2017").rename(tmp_path / "elsewhere")
    (photo,) = read_coco(folder)  # only one of them has its photographs
    assert photo.path == folder / "val2017" / "a.png"


def test_roboflow_keeps_photographs_beside_the_file(tmp_path):
    folder = tool(tmp_path / "set", BASE, "_annotations.coco.json")
    (folder / "images" / "a.png").rename(folder / "a.png")
    (photo,) = read_coco(folder)
    assert photo.path == folder / "a.png"


def test_photographs_of_one_name_in_two_folders_are_not_confused(tmp_path):
    folder = tool(tmp_path / "set", BASE)
    content = json.loads((folder / "annotations.json").read_text())
    content["images"] = [BASE | {"id": 1, "file_name": "one/a.png"}, BASE | {"id": 2, "file_name": "two/a.png"}]
    content["annotations"].append(content["annotations"][0] | {"id": 2, "image_id": 2})
    (folder / "annotations.json").write_text(json.dumps(content))
    assert [photo.path.parent.name for photo in read_coco(folder)] == [
        "one",
        "two",
    ]  # missing, rather than the wrong one


@pytest.mark.parametrize("corner", [float("nan"), float("inf"), 1e300])
def test_polygons_with_absurd_numbers_do_no_harm(tmp_path, caplog, corner):
    folder = tool(tmp_path / "set", BASE, segmentation=[[5, 5, corner, 5, 50, 40]])
    if corner == 1e300:
        (photo,) = read_coco(folder)
        assert photo.masks[0].box[2] == 90
    else:
        with pytest.raises(DataError, match="no photograph with a usable mask"):
            read_coco(folder)
        assert "numbers that are not finite" in caplog.text
