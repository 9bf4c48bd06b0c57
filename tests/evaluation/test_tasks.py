import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label

from tinysam.datasets.coco import DataError
from tinysam.evaluation.detections import DetectionTask, clipped, read_detections
from tinysam.evaluation.everything import recalls
from tinysam.evaluation.prompted import Answers, Final, Protocol, decode, iou, scores
from tinysam.evaluation.tasks import PromptedTask, band, group_means, spread, table
from tinysam.runtime.manifest import Cleaning


def test_iou_matches_hand_arithmetic():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2] = True
    truth = np.zeros((4, 4), bool)
    truth[1:3] = True
    assert iou(masks, truth).tolist() == [pytest.approx(4 / 12), 0]


def test_scores_tell_chosen_best_and_single_apart():
    truth = np.zeros((1, 4, 4), bool)
    truth[0, :2] = True
    masks = np.zeros((1, 4, 4, 4), bool)
    masks[0, 0, :1] = True
    masks[0, 1, :2] = True
    masks[0, 2, :3] = True
    answers = Answers(
        tokens=(0, 1, 2, 3),
        masks=masks,
        low_res=np.zeros((1, 4, 1, 1)),
        predicted=np.array([[0.99, 0.5, 0.8, 0.1]], np.float32),
        chosen=np.array([2]),
        shown=masks[:, 1] & masks[:, 2],
    )
    (row,) = scores(answers, truth, "box", Final(masks[:, 1] & masks[:, 2], np.array([0.8])))
    expected = {
        "box": 1.0,
        "box_whole": 1.0,
        "box_raw": 8 / 12,
        "box_best": 1.0,
        "box_single": 0.5,
        "box_predicted": 0.8,
    }
    assert row == pytest.approx(expected, abs=1e-6)
    (row,) = scores(answers, truth, "box", Final(masks[:, 0], np.array([0.7])))
    assert row == pytest.approx(expected | {"box": 0.5, "box_predicted": 0.7}, abs=1e-6)


def test_what_a_user_gets_is_cleaned(knowing, photos):
    photo = knowing.graphs.photo = photos[0]
    truth = photo.masks[0].decode().astype(bool)
    with Image.open(photo.path) as image:
        knowing.set_image(image.convert("RGB"))
    low_res, predicted = knowing.graphs.decode(None, knowing.prompts(boxes=[photo.masks[0].box]))
    speck = np.argwhere(low_res[0, 2] < 0)[0]
    low_res[0, 2, speck[0], speck[1]] = 10
    knowing.graphs.decode = lambda embedding, prompts: (low_res, predicted)
    knowing.graphs.manifest = replace(knowing.manifest, mask_choice="best", cleaning=Cleaning(islands=0.1))
    answers = decode(knowing, knowing.prompts(boxes=[photo.masks[0].box]))
    assert answers.chosen.tolist() == [2]
    (row,) = scores(answers, truth[None], "box", Final(answers.shown, answers.predicted[:, 2]))
    assert row["box"] == row["box_whole"] > row["box_raw"]
    assert label(answers.masks[0, 2])[1] == 2 and label(answers.shown[0])[1] == 1


def test_a_model_that_knows_the_masks_reaches_nearly_one(knowing, photos):
    for photo in photos:
        knowing.graphs.photo = photo
        with Image.open(photo.path) as image:
            rows = PromptedTask(Protocol(True, (1, 3))).record(knowing, photo, image.convert("RGB"))
        assert len(rows) == 2
        for row in rows:
            assert min(row["box"], row["click_1"], row["click_1_best"]) > 0.93
            # Mask 0 is empty.
            assert row["box_single"] == row["click_3_single"] == 0


def test_a_picture_of_another_size_than_its_masks_is_refused(knowing, photos):
    knowing.graphs.photo = photos[0]
    with pytest.raises(ValueError, match="masks are"):
        PromptedTask().record(knowing, photos[0], Image.new("RGB", (30, 30)))


def test_recalls_of_one_mask():
    assert recalls(0.75) == {"best_iou": 0.75, "recall_50": 1, "recall_75": 1, "average_recall": pytest.approx(0.6)}
    assert recalls(0.49)["average_recall"] == 0


def test_group_means_weigh_every_mask_the_same():
    rows = [{"source": "a", "x": 0.0}, {"source": "a", "x": 0.5}, {"source": "b", "x": 1.0}]
    groups = group_means(rows, "source", ["x"])
    assert {name: values["x"] for name, values in groups.items()} == {"all": 0.5, "a": 0.25, "b": 1.0}
    assert next(iter(groups)) == "all"
    assert "0.250" in table(groups, ["x"])


def test_bands_and_spreading():
    assert [band(v) for v in (0.0005, 0.001, 0.05, 0.5)] == ["< 0.1 %", "0.1-1 %", "1-10 %", "> 10 %"]
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(2), 3) == [0, 1]


def boxes_of(photos, path):
    found = [
        {"image_id": photo.id, "category_id": 1, "score": 0.9, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for photo in photos
        for x0, y0, x1, y1 in (mask.box for mask in photo.masks)
    ]
    path.write_text(json.dumps(found))
    return path


@pytest.fixture
def task(drawn, photos, tmp_path) -> DetectionTask:
    return DetectionTask(drawn, boxes_of(photos, tmp_path / "boxes.json"))


def records_of(task, knowing, photos):
    records = []
    for photo in photos:
        knowing.graphs.photo = photo
        with Image.open(photo.path) as image:
            records.append(task.record(knowing, photo, image.convert("RGB")))
    return records


def precision(task, records):
    return task.figures(records).summary["average_precision"]["AP75"]


def change(folder, new):
    content = json.loads((folder / "annotations.json").read_text())
    new(content)
    (folder / "annotations.json").write_text(json.dumps(content))


def test_perfect_boxes_and_masks_have_an_average_precision_of_one(task, knowing, photos):
    records = records_of(task, knowing, photos)
    assert precision(task, records) == pytest.approx(1)
    assert precision(task, records[:2]) == pytest.approx(1)
    records[0]["results"] = records[1]["results"] = []
    assert precision(task, records) == pytest.approx(0.5, abs=0.02)


def test_detections_in_a_photograph_without_annotations_are_wrong(task, knowing, photos, drawn):
    records = records_of(task, knowing, photos)
    change(drawn, lambda content: content.update(annotations=[a for a in content["annotations"] if a["image_id"]]))
    assert precision(task, records[1:]) == pytest.approx(1)
    # The 2 of 8 detections that are wrong have the same score as the others, and come first.
    assert precision(task, records) < 0.8


def test_annotations_that_cannot_be_used_do_not_count(task, knowing, photos, drawn):
    def damage(content):
        empty = {"image_id": 1, "category_id": 1}
        short = {**empty, "segmentation": {"size": [3, 3], "counts": [9]}}
        content["annotations"] = [{**a, "id": n} for n, a in enumerate([empty, short, *content["annotations"]])]

    change(drawn, damage)
    assert precision(task, records_of(task, knowing, photos)) == pytest.approx(1)


def test_annotations_without_categories_are_refused(task, knowing, photos, drawn):
    change(drawn, lambda content: content.pop("categories"))
    with pytest.raises(DataError, match="not COCO annotations with categories"):
        task.figures(records_of(task, knowing, photos))


def test_boxes_are_cut_off_at_the_photograph():
    assert clipped({"bbox": [-5, 2, 20, 30]}, 10, 12) == (0, 2, 10, 12)
    assert clipped({"bbox": [11, 2, 20, 30]}, 10, 12) is None


@pytest.mark.parametrize("content", ["{", "{}x", '[{"image_id": 1}]', '[{"bbox": [1, 2]}]', "[3]"])
def test_damaged_detections_are_refused(tmp_path, content):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(DataError, match="not COCO detections"):
        read_detections(tmp_path / "boxes.json")
