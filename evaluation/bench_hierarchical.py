"""Ways to segment everything side by side in one run: time, prompts, and IoU with annotated masks.

    python -m tinysam.evaluation.bench_hierarchical artifacts/nano-448 coco/val --limit 50
    python -m tinysam.evaluation.bench_hierarchical artifacts/nano-448 coco/val --before OLD_CHECKOUT OLD_ARTIFACTS

The plain grid is the reference of accuracy, hierarchical mode is what `tinysam-run` does by default. With `--before`
hierarchical mode of another version of this project takes part, with artifacts that it can read.

1. Each way runs in a process of its own. They take turns, photograph by photograph, so that a busy machine hits all.
2. For every annotated mask the best IoU of any mask found counts; the mean is over all annotated masks.
3. Ratios are of CPU time: on a busy machine it means more than the clock.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from tinysam.datasets.coco import Photo, read_coco
from tinysam.evaluation import everything_worker
from tinysam.evaluation.tasks import mean, spread
from tinysam.runtime.engines.formats import DEFAULT, FORMATS
from tinysam.runtime.graphs import CHOICES
from tinysam.runtime.process import run_command

FIGURES = ("cpu_s", "wall_s", "prompts", "drawn", "relaxed")
"""What a worker says of each photograph besides its masks."""


@dataclass
class Way:
    """One way to segment everything, and what it has shown so far."""

    name: str
    job: Mapping[str, Any]
    """For the worker."""
    checkout: Path | None = None
    """Of another version of the project; None for this one."""
    seen: list[dict[str, float]] = field(default_factory=list)
    best_ious: list[float] = field(default_factory=list)

    def mean(self, figure: str) -> float:
        """Over photographs."""
        return mean([one[figure] for one in self.seen])


class Worker:
    """The process of one way."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._packages = tempfile.TemporaryDirectory()
        environment = dict(os.environ)
        if way.checkout is not None:
            environment["PYTHONPATH"] = link_packages(way.checkout, Path(self._packages.name))
        self._process = subprocess.Popen(
            [sys.executable, everything_worker.__file__, json.dumps(dict(way.job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        self._packages.cleanup()

    def segment(self, photo: Photo) -> None:
        """Has one photograph segmented and adds what came of it.

        Raises:
            ValueError: the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{photo.path}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            where, code = self._way.checkout or "this version", self._process.wait()
            raise ValueError(f"{self._way.name}: the worker of {where} ended with {code}: {dict(self._way.job)}")
        found = json.loads(line)
        self._way.seen.append({**{name: found[name] for name in FIGURES}, "masks": len(found["masks"])})
        self._way.best_ious += best_ious(found["masks"], photo)


def link_packages(checkout: Path, folder: Path) -> str:
    """A folder for PYTHONPATH in which the packages of a checkout are found under their import names.

    Raises:
        ValueError: it holds no such packages.
    """
    if not (checkout / "runtime" / "everything").is_dir():
        raise ValueError(f"{checkout}: expected a checkout of this project, with runtime/everything")
    (folder / "tinysam").mkdir()
    for package in checkout.iterdir():
        if (package / "__init__.py").is_file():
            (folder / "tinysam" / package.name).symlink_to(package.resolve())
    return str(folder)


def best_ious(found: Sequence[Mapping[str, Any]], photo: Photo) -> list[float]:
    """For each annotated mask the IoU of the found mask (COCO run lengths) that fits best; 0 if none was found."""
    if not found:
        return [0.0] * len(photo.masks)
    overlaps = coco_mask.iou(list(found), [one.rle for one in photo.masks], [0] * len(photo.masks))
    return [float(value) for value in np.asarray(overlaps).max(axis=0)]


def compare(ways: Sequence[Way], photos: Sequence[Photo]) -> None:
    """All ways in turn on every photograph."""
    workers = [Worker(way) for way in ways]
    try:
        for photo in photos:
            for worker in workers:
                worker.segment(photo)
    finally:
        for worker in workers:
            worker.__exit__(None, None, None)


def table(ways: Sequence[Way]) -> str:
    """One line for each way, then the ratios of the last one to each other."""
    lines = [
        f"{way.name:<13} {way.mean('cpu_s'):7.2f} s cpu {way.mean('wall_s'):7.2f} s wall "
        f"{way.mean('prompts'):6.0f} prompts {way.mean('drawn'):6.0f} drawn {way.mean('masks'):6.1f} masks "
        f"mean best IoU {mean(way.best_ious):.4f}  relaxed {sum(one['relaxed'] for one in way.seen):.0f}"
        for way in ways
    ]
    last = ways[-1]
    for way in ways[:-1]:
        share = last.mean("cpu_s") / way.mean("cpu_s")
        ours, theirs = mean(last.best_ious), mean(way.best_ious)
        lines.append(
            f"{last.name} takes {share:.2f} of the CPU time of {way.name} ({1 / share:.2f} times as fast), "
            f"mean best IoU {100 * (ours - theirs):+.2f} points ({100 * ours / theirs if theirs else 0:.1f} %)"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("artifacts", type=Path)
    top.add_argument("data", type=Path, help="folder with annotations.json (COCO format) and images/")
    top.add_argument("--limit", type=int, default=0, help="photographs, evenly spread over the set (0: all)")
    top.add_argument("--backend", default=DEFAULT, choices=tuple(FORMATS))
    top.add_argument("--precision", default="int8", choices=CHOICES)
    top.add_argument("--threads", type=int, default=2)
    top.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings than the model's")
    top.add_argument("--no-plain", action="store_true", help="leave out the plain grid, which takes the longest")
    top.add_argument("--before", nargs=2, type=Path, metavar=("CHECKOUT", "ARTIFACTS"), help="of another version")
    return top


def main() -> None:
    """Prints a line for each way and the ratios."""
    options = parser().parse_args()
    changes = {name: json.loads(value) for name, value in (pair.split("=") for pair in options.set)}
    model = {"backend": options.backend, "precision": options.precision, "threads": options.threads}

    def job(artifacts: Path, **settings: object) -> dict[str, Any]:
        return {**model, "artifacts": str(artifacts), "settings": settings}

    ways = [] if options.no_plain else [Way("plain", job(options.artifacts, hierarchical=False, **changes))]
    if options.before:
        ways.append(Way("before", job(options.before[1], hierarchical=True), options.before[0]))
    ways.append(Way("hierarchical", job(options.artifacts, hierarchical=True, **changes)))
    photos = spread(read_coco(options.data), options.limit)
    compare(ways, photos)
    masks = sum(len(photo.masks) for photo in photos)
    print(f"{len(photos)} photographs, {masks} annotated masks, {options.backend} {options.precision}")
    print(table(ways))


if __name__ == "__main__":
    sys.exit(run_command("bench_hierarchical", main))
