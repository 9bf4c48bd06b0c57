"""Runs a task over the photographs of a set, one after the other, in this process."""

import logging
from collections.abc import Sequence

from tqdm import tqdm

from tinysam.evaluation.backends import ModelChoice
from tinysam.evaluation.coco import Photo
from tinysam.evaluation.reading import ahead, read_photo
from tinysam.evaluation.records import Records
from tinysam.evaluation.tasks import Task

log = logging.getLogger(__name__)


def run(task: Task, choice: ModelChoice, photos: Sequence[Photo], records: Records) -> int:
    """Adds the records that are missing; how many photographs could not be read.

    The next photographs are decoded by other threads while the model works on one.
    """
    left = [photo for photo in photos if str(photo.id) not in records]
    segmenter, unreadable = choice.open(), 0
    for photo, image in tqdm(ahead(read_photo, left), total=len(left), unit="image", disable=None):
        if image is None:
            log.warning("%s: cannot be read, left out", photo.path)
            unreadable += 1
            continue
        records.add(str(photo.id), task.record(segmenter, photo, image))
    return unreadable
