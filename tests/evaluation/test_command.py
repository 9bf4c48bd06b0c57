import json
import sys

import pytest
from PIL import Image

from tinysam.evaluation import cli
from tinysam.evaluation.records import Records, RecordsError


def evaluate(monkeypatch, *arguments: object) -> int:
    options = ["tinysam-eval", "--backend", "torch", "--image-size", "224", "--threads", "1", "--clicks", "1"]
    monkeypatch.setattr(sys, "argv", [*options, *map(str, arguments)])
    return cli.main()


def test_a_stopped_run_continues_and_ends_the_same(drawn, tmp_path, monkeypatch, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert evaluate(monkeypatch, "--data", drawn, "--out", whole) == 0
    lines = (whole / "records.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 5
    parts.mkdir()
    (parts / "records.jsonl").write_text("".join(lines[:3]) + lines[3][:40])
    assert evaluate(monkeypatch, "--data", drawn, "--out", parts) == 0
    one, other = (json.loads((folder / "summary.json").read_text()) for folder in (whole, parts))
    assert one["mean_iou"] == other["mean_iou"]
    assert one["mean_iou"]["all"]["masks"] == 8
    assert set(one["mean_iou"]) == {"all", "s0", "s1"}
    assert "box_best" in capsys.readouterr().out


def test_records_of_other_settings_are_refused(drawn, tmp_path, monkeypatch, capsys):
    assert evaluate(monkeypatch, "--data", drawn, "--out", tmp_path / "out", "--limit", 1) == 0
    assert evaluate(monkeypatch, "--data", drawn, "--out", tmp_path / "out", "--no-box") == 1
    assert "results of another model or other settings" in capsys.readouterr().err


def test_a_finished_run_is_grouped_anew_without_computing(drawn, tmp_path, monkeypatch, capsys):
    arguments = ("--data", drawn, "--out", tmp_path / "out", "--limit", 1)
    assert evaluate(monkeypatch, *arguments) == 0
    records = (tmp_path / "out/records.jsonl").read_bytes()
    assert evaluate(monkeypatch, *arguments, "--by", "size") == 0
    assert (tmp_path / "out/records.jsonl").read_bytes() == records
    assert set(json.loads((tmp_path / "out/summary.json").read_text())["mean_iou"]) == {"all", "> 10 %"}


def test_pictures_that_cannot_be_read_are_counted(drawn, tmp_path, monkeypatch):
    (drawn / "images/1.png").write_bytes(b"no picture")
    (drawn / "images/2.png").unlink()
    assert evaluate(monkeypatch, "--data", drawn, "--out", tmp_path / "out") == 0
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["unreadable"] == 2
    assert summary["mean_iou"]["all"]["masks"] == 4


def test_a_picture_of_another_size_than_annotated_is_left_out(drawn, tmp_path, monkeypatch, caplog):
    Image.new("RGB", (30, 20)).save(drawn / "images/0.png")
    assert evaluate(monkeypatch, "--data", drawn, "--out", tmp_path / "out", "--limit", 2) == 0
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["images"], summary["unreadable"]) == (1, 1)
    assert "0.png: 30 x 20 pixels, its annotations say" in caplog.text


def test_records_of_changed_annotations_are_refused(drawn, tmp_path, monkeypatch, capsys):
    assert evaluate(monkeypatch, "--data", drawn, "--out", tmp_path / "out", "--limit", 1) == 0
    content = json.loads((drawn / "annotations.json").read_text())
    content["annotations"].pop()
    (drawn / "annotations.json").write_text(json.dumps(content))
    assert evaluate(monkeypatch, "--data", drawn, "--out", tmp_path / "out", "--limit", 1) == 1
    assert "results of another model or other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "expected COCO annotations"),
        (["--task", "detections"], "needs --boxes"),
        (["--checkpoint", "nowhere.pth"], "no such file"),
        (["--image-size", "300"], "image size 300"),
        (["--no-box", "--clicks"], "nothing to measure"),
        (["--clicks", "0"], "expected numbers from 1"),
        (["--limit", "-1"], "--limit -1: expected 0 (all) or more"),
    ],
)
def test_bad_input_ends_with_one_line(drawn, tmp_path, monkeypatch, capsys, arguments, message):
    data = [] if "--data" in arguments else ["--data", drawn]
    assert evaluate(monkeypatch, *data, "--out", tmp_path / "out", *arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_ray_that_is_not_installed_is_named(drawn, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert evaluate(monkeypatch, "--data", drawn, "--out", tmp_path / "out", "--engine", "ray") == 1
    assert "pip install 'tinysam-edge[ray]'" in capsys.readouterr().err


def test_records_that_are_none_are_refused(tmp_path):
    (tmp_path / "records.jsonl").write_text("hello\n")
    with pytest.raises(RecordsError, match="not a file of results"):
        Records(tmp_path / "records.jsonl", {})


def test_everything_finds_the_drawn_things(drawn, tmp_path, monkeypatch):
    out = tmp_path / "out"
    options = ["--task", "everything", "--points-per-side", 8, "--limit", 1, "--out", out]
    assert evaluate(monkeypatch, "--data", drawn, *options) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["masks_per_image"] >= 1
    assert summary["everything"]["all"]["best_iou"] > 0.2


def test_detections_are_made_in_photographs_without_annotations_too(drawn, tmp_path, monkeypatch, capsys):
    content = json.loads((drawn / "annotations.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"]]
    (drawn / "annotations.json").write_text(json.dumps(content))
    boxes = [{"image_id": n, "category_id": 1, "bbox": [10, 20, 50, 50], "score": 0.5} for n in range(4)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    out = tmp_path / "out"
    arguments = ("--data", drawn, "--task", "detections", "--boxes", tmp_path / "boxes.json", "--out", out)
    assert evaluate(monkeypatch, *arguments) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["images"], summary["detections"]) == (4, 4)
    assert 0 < summary["average_precision"]["AP50"] < 1
    (tmp_path / "boxes.json").write_text(json.dumps(boxes[1:]))
    assert evaluate(monkeypatch, *arguments) == 1
    assert "results of another model or other settings" in capsys.readouterr().err


def test_annotating_a_folder_gives_a_set_to_train_on(drawn, tmp_path, monkeypatch):
    from tinysam.datasets.coco import read_coco

    (drawn / "images/broken.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    options = ["--task", "annotate", "--points-per-side", 4, "--limit", 2, "--out", out]
    assert evaluate(monkeypatch, "--data", drawn / "images", *options) == 0
    photos = read_coco(out)
    assert photos
    for photo in photos:
        assert photo.path.parent == (drawn / "images").resolve()
        assert all(mask.decode().shape == (photo.height, photo.width) for mask in photo.masks)
