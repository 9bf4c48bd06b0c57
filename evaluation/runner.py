"""Runs a task over the photographs of a set, one after the other, in this process."""

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from tinysam.datasets.coco import Photo
from tinysam.datasets.reading import ahead, read_photo
from tinysam.evaluation.backends import ModelChoice
from tinysam.evaluation.records import Records
from tinysam.evaluation.tasks import Task


def run(task: Task, choice: ModelChoice, photos: Sequence[Photo], records: Records) -> dict[str, Any]:
    """Adds the records that are missing; all records by key. Photographs that cannot be read have none.

    The next photographs are decoded by other threads while the model works on one.
    """
    left = [photo for photo in photos if str(photo.id) not in records]
    segmenter = choice.open()
    for photo, image in tqdm(ahead(read_photo, left), total=len(left), unit="image", disable=None):
        if image is not None:
            records.add(str(photo.id), task.record(segmenter, photo, image))
    return records.lines
