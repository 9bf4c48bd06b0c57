"""The sweep says what the generator would do: compared with the generator."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.runtime import disc_model
from tinysam.datasets.coco import Photo
from tinysam.evaluation.everything import EverythingTask
from tinysam.evaluation.sweep import SweepTask
from tinysam.runtime import Segmenter
from tinysam.runtime.everything.generator import segment_everything
from tinysam.runtime.everything.settings import EverythingSettings

VALUES = (
    ("pred_iou_thresh", (0.5, 0.8)),
    ("coarse_logit_thresh", (0.0, 2.0, 5.0)),
    ("coarse_agreement", (1, 2)),
    ("coarse_share", (0.3, 1.0)),
)


@pytest.fixture
def segmenter(tmp_path: Path) -> Segmenter:
    return Segmenter(disc_model.build(tmp_path, (0, 1, 2)), precision="fp32", threads=1)


@pytest.fixture
def photo(photos: list[Photo]) -> Photo:
    return photos[0]


def rows(segmenter: Segmenter, photo: Photo) -> list[dict[str, Any]]:
    with Image.open(photo.path) as image:
        return SweepTask(VALUES).record(segmenter, photo, image.convert("RGB"))


def test_every_row_is_what_the_generator_finds(segmenter: Segmenter, photo: Photo) -> None:
    found = rows(segmenter, photo)
    assert len(found) == 2 * 2 * 3 * 2 * 2
    with Image.open(photo.path) as image:
        picture = image.convert("RGB")
    for row in found:
        settings = {**row["settings"], "hierarchical": row["hierarchical"]}
        real = segment_everything(
            segmenter, picture, EverythingSettings.of_model(segmenter.manifest.everything, **settings)
        )
        assert row["points"] == real.points
        assert row["masks"] == len(real.masks) > 0
        task = EverythingTask(tuple(settings.items()))
        expected = [one["best_iou"] for one in task.record(segmenter, photo, picture)["rows"]]
        assert row["best_iou"] == pytest.approx(expected)
    assert len({row["points"] for row in found if row["hierarchical"]}) > 2


def test_figures_set_hierarchical_beside_plain(segmenter: Segmenter, photo: Photo) -> None:
    record = rows(segmenter, photo)
    figures = SweepTask(VALUES).figures([record, record])
    lines = figures.summary["sweep"]
    names = [name for name, _ in VALUES]
    assert [tuple(line[name] for name in names) for line in lines] == list(product(*(values for _, values in VALUES)))
    first = lines[0]
    assert first["plain"]["points"] == 64
    assert first["fewer_points"] == pytest.approx(64 / record[1]["points"])
    expected = sum(record[1]["best_iou"]) / sum(record[0]["best_iou"])
    assert first["kept_iou"] == pytest.approx(expected)
    assert len(figures.text.splitlines()) == 1 + len(lines)


def test_nothing_found_is_no_error(segmenter: Segmenter, photo: Photo) -> None:
    with Image.open(photo.path) as image:
        record = SweepTask((("pred_iou_thresh", (0.99,)),)).record(segmenter, photo, image.convert("RGB"))
    assert [row["masks"] for row in record] == [0, 0]
    assert SweepTask((("pred_iou_thresh", (0.99,)),)).figures([record]).summary["sweep"][0]["kept_iou"] == 0
