"""A run over the photographs of a set, one line of results per photograph, so that a stopped run continues."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tinysam.datasets.coco import Photo
from tinysam.datasets.reading import prefetch, read_photo
from tinysam.evaluation.backends import ModelChoice
from tinysam.evaluation.tasks import Task


class RecordsError(ValueError):
    """Records that belong to another run; the message is one line."""


def fingerprint(settings: dict[str, Any]) -> str:
    """Short hash of what a run's results depend on."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class Records:
    """Append-only json lines; the first names the settings."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Opens or starts the file.

        Raises:
            RecordsError: `path` was written with other settings.
        """
        self.path = path
        self.lines: dict[str, Any] = {}
        header = {"run": fingerprint(settings), "settings": settings}
        if path.is_file() and path.stat().st_size:
            self.read(header)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(header) + "\n")

    def read(self, header: dict[str, Any]) -> None:
        """Takes up earlier results; a last line cut short by a kill is removed."""
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            first, *others = [json.loads(line) for line in whole.splitlines()]
            run = first["run"]
        except (ValueError, KeyError, TypeError) as error:
            raise RecordsError(f"{self.path}: not a file of results; remove it or choose another --out") from error
        if run != header["run"]:
            raise RecordsError(f"{self.path}: results of another model or other settings; choose another --out")
        if whole != content:
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        self.lines = {line["key"]: line["value"] for line in others}

    def __contains__(self, key: str) -> bool:
        return key in self.lines

    def add(self, key: str, value: Any) -> None:
        """Writes one photograph's results at once."""
        self.lines[key] = value
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key, "value": value}) + "\n")


def run_here(task: Task, choice: ModelChoice, photos: Sequence[Photo], records: Records) -> dict[str, Any]:
    """Adds the records that are missing; all records by key. Photographs that cannot be read have none.

    The next photographs are decoded by other threads while the model works on one.
    """
    left = [photo for photo in photos if str(photo.id) not in records]
    segmenter = choice.open()
    for photo, image in tqdm(prefetch(read_photo, left), total=len(left), unit="image", disable=None):
        if image is not None:
            records.add(str(photo.id), task.record(segmenter, photo, image))
    return records.lines
