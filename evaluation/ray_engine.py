"""The same tasks over very many photographs, on the workers of a Ray cluster (Ray Data).

1. The photographs are cut into parts of PART; a part is named by the hash of settings and photographs.
2. Every worker opens the model once, takes one part after the other, and writes its records as one Parquet file: to a
   temporary name, then renamed, so a file is complete or absent.
3. Parts whose file is there are not given out: a run that is started again continues. A part whose worker was lost is
   given to another worker.

Needs the extra `ray`. Photographs, artifacts and output lie where all workers see them under the same path.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinysam.datasets.coco import Photo
from tinysam.datasets.reading import prefetch, read_photo
from tinysam.evaluation.backends import ModelChoice
from tinysam.evaluation.records import fingerprint
from tinysam.evaluation.tasks import Task
from tinysam.runtime.atomic import replace_atomically

PART = 64
"""Photographs per part."""
RETRIES = 5
"""How often a part is given out again, and a lost worker replaced."""


@dataclass(frozen=True)
class Job:
    """What every worker has to know."""

    task: Task
    choice: ModelChoice
    photos: Sequence[Photo]
    settings: dict[str, Any]
    folder: Path
    """Of the Parquet files."""
    size: int = PART

    def parts(self) -> list[list[int]]:
        """Indexes of the photographs of each part."""
        return [list(range(i, min(i + self.size, len(self.photos)))) for i in range(0, len(self.photos), self.size)]

    def path(self, part: Sequence[int]) -> Path:
        """File of a part."""
        photos = [[self.photos[i].id, str(self.photos[i].path)] for i in part]
        return self.folder / f"part-{part[0]:08}-{fingerprint({**self.settings, 'photos': photos})}.parquet"


class Worker:
    """Holds the model; called with one part after the other."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.segmenter = job.choice.open()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Evaluates `row["first"]` up to `row["last"]`, not included, and writes the part's file."""
        import pyarrow
        from pyarrow import parquet

        part = range(int(row["first"]), int(row["last"]))
        keys, values = [], []
        for photo, image in prefetch(read_photo, [self.job.photos[i] for i in part]):
            keys.append(str(photo.id))
            values.append(None if image is None else json.dumps(self.job.task.record(self.segmenter, photo, image)))
        path = self.job.path(part)
        with replace_atomically(path) as partial:
            parquet.write_table(pyarrow.table({"key": keys, "value": pyarrow.array(values, pyarrow.string())}), partial)
        return {"path": str(path), "photos": len(part)}


def run(job: Job, workers: int) -> Iterator[int]:
    """Computes the missing parts on `workers` workers; yields the number of photographs of each part that is done."""
    try:
        import ray
        from ray.data import ActorPoolStrategy
    except ImportError as error:
        raise ImportError("--engine ray needs Ray: pip install 'tinysam-edge[ray]' (with NumPy 2)") from error

    job.folder.mkdir(parents=True, exist_ok=True)
    left = [part for part in job.parts() if not job.path(part).exists()]
    yield len(job.photos) - sum(len(part) for part in left)
    if not left:
        return
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"first": part[0], "last": part[-1] + 1} for part in left]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Worker,
        fn_constructor_args=(job,),
        compute=ActorPoolStrategy(size=workers),
        num_cpus=job.choice.threads,
        max_restarts=RETRIES,
        max_task_retries=RETRIES,
    )
    for row in done.iter_rows():
        yield int(row["photos"])


def records(job: Job) -> dict[str, Any]:
    """What the parts hold: key of the photograph -> record; None for those that could not be read."""
    from pyarrow import parquet

    found: dict[str, Any] = {}
    for part in job.parts():
        for row in parquet.read_table(job.path(part)).to_pylist():
            found[row["key"]] = None if row["value"] is None else json.loads(row["value"])
    return found
