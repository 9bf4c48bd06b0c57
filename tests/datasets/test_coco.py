import json
import logging
from pathlib import Path

import numpy as np
import pytest
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
