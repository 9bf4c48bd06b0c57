"""The benchmark of everything mode: its figures are those of the generator, and another checkout takes part."""

import sys
from pathlib import Path

import pytest

from tests.runtime import disc_model
from tinysam.datasets.coco import Photo
from tinysam.evaluation import bench_hierarchical
from tinysam.evaluation.bench_hierarchical import Way, best_ious, compare, table
from tinysam.evaluation.everything import best_ious as best_ious_of_records
from tinysam.runtime import Segmenter
from tinysam.runtime.everything.generator import segment_everything
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.image import load_image

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return disc_model.build(tmp_path)


def job(artifacts: Path, **settings: object) -> dict[str, object]:
    return {"artifacts": str(artifacts), "backend": "onnx", "precision": "fp32", "threads": 1, "settings": settings}


def test_workers_find_what_the_generator_finds(artifacts: Path, photos: list[Photo]) -> None:
    ways = [Way("before", job(artifacts, hierarchical=False), REPOSITORY), Way("hierarchical", job(artifacts))]
    compare(ways, photos[:2])
    segmenter = Segmenter(artifacts, precision="fp32", threads=1)
    for way, hierarchical in zip(ways, (False, True), strict=True):
        settings = EverythingSettings.of_model(disc_model.THRESHOLDS, hierarchical=hierarchical)
        expected: list[float] = []
        for photo, seen in zip(photos, way.seen, strict=False):
            found = segment_everything(segmenter, load_image(photo.path).image, settings)
            assert (seen["prompts"], seen["drawn"], seen["masks"]) == (found.points, found.drawn, len(found.masks))
            assert seen["cpu_s"] > 0
            expected += best_ious_of_records(found.masks, photo.masks)
        assert way.best_ious == pytest.approx(expected)
    assert ways[0].seen[0]["prompts"] == 64 > ways[1].seen[0]["prompts"]


def test_nothing_found_fits_nothing(photos: list[Photo]) -> None:
    assert best_ious([], photos[0]) == [0.0] * len(photos[0].masks)


def test_the_table_gives_the_ratio_of_cpu_time_and_the_difference_in_points() -> None:
    figures = {"wall_s": 9.0, "prompts": 100.0, "drawn": 50.0, "masks": 20.0, "relaxed": 0.0}
    before = Way("before", {}, seen=[figures | {"cpu_s": 2.0}, figures | {"cpu_s": 4.0}], best_ious=[0.5, 0.7])
    after = Way("hierarchical", {}, seen=[figures | {"cpu_s": 1.5}], best_ious=[0.6, 0.594])
    lines = table([before, after]).splitlines()
    assert lines[-1] == (
        "hierarchical takes 0.50 of the CPU time of before (2.00 times as fast), mean best IoU -0.30 points (99.5 %)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--before", ".", "."], "expected a checkout of this project"),
        (["--no-plain"], "hierarchical: the worker of this version ended with 1"),
    ],
)
def test_what_cannot_run_is_said(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", str(tmp_path / "no-artifacts"), str(drawn), "--limit", "1", *arguments])
    with pytest.raises(ValueError, match=message):
        bench_hierarchical.main()
