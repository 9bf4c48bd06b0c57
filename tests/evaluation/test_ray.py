"""Two local workers of a Ray cluster; needs the extra `ray`."""

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.drawing import draw
from tinysam.datasets.coco import read_coco
from tinysam.evaluation import ray_engine
from tinysam.evaluation.backends import ModelChoice
from tinysam.evaluation.ray_engine import Job, records

ray = pytest.importorskip("ray", reason="Ray has an environment of its own: make test-ray")


@pytest.fixture(autouse=True)
def alone() -> None:
    """In place of the fixture of this name beside it: Ray's environment has no PyTorch to limit."""


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def job_of(tmp_path: Path, pause: float = 0.0) -> Job:
    # Classes of this function travel to the workers by value.
    class NoModel(ModelChoice):
        def open(self) -> Any:
            return None

    @dataclass(frozen=True)
    class Counting:
        pause: float

        def record(self, segmenter: Any, photo: Any, image: Any) -> dict[str, Any]:
            (tmp_path / "pids").mkdir(exist_ok=True)
            (tmp_path / "pids" / f"{os.getpid()}-{photo.id}").touch()
            time.sleep(self.pause)
            return {"size": list(image.size), "masks": len(photo.masks)}

        def figures(self, records: Any) -> Any:
            raise NotImplementedError

    if not (tmp_path / "drawn").exists():
        draw(tmp_path / "drawn", 8)
    return Job(Counting(pause), NoModel(threads=1), read_coco(tmp_path / "drawn"), {}, tmp_path / "parts", size=2)


def expected(job: Job) -> dict[str, Any]:
    return {str(p.id): {"size": [p.width, p.height], "masks": 2} for p in job.photos}


def test_a_run_continues_where_it_stopped(tmp_path):
    job = job_of(tmp_path)
    assert sum(ray_engine.run(job, workers=2)) == 8
    assert records(job) == expected(job)
    lost = job.path(job.parts()[1])
    lost.unlink()
    for name in (tmp_path / "pids").iterdir():
        name.unlink()
    assert list(ray_engine.run(job, workers=2)) == [6, 2]
    assert {p.name.split("-")[1] for p in (tmp_path / "pids").iterdir()} == {"2", "3"}
    assert records(job) == expected(job)
    assert list(ray_engine.run(job, workers=2)) == [8]


def test_a_lost_worker_loses_nothing(tmp_path):
    job = job_of(tmp_path, pause=1.0)
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 90
        while not killed and time.monotonic() < deadline:
            for name in sorted((tmp_path / "pids").glob("*")):
                killed.append(int(name.name.split("-")[0]))
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    assert sum(ray_engine.run(job, workers=2)) == 8
    killer.join()
    assert len(killed) == 1
    workers = {int(p.name.split("-")[0]) for p in (tmp_path / "pids").iterdir()}
    assert killed[0] in workers
    assert len(workers) >= 2
    assert records(job) == expected(job)


def test_other_settings_have_other_parts(tmp_path):
    job = job_of(tmp_path)
    other = Job(job.task, job.choice, job.photos, {"model": "another"}, job.folder, job.size)
    assert not {job.path(part) for part in job.parts()} & {other.path(part) for part in other.parts()}
