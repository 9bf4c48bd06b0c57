"""What keeping an embedding saves and changes: `python -m tinysam.evaluation.bench_embedding ARTIFACTS DATA`.

For every photograph: one click answered from a fresh encoding and from a kept embedding (CPU time), and further clicks
answered from the embedding kept in float32 and in float16 (IoU with the masks of the fresh one).
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tinysam.datasets.coco import read_coco
from tinysam.evaluation.backends import ModelChoice
from tinysam.runtime.embeddings import DTYPES
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.graphs import CHOICES
from tinysam.runtime.segmenter import Segmenter

CLICKS = 6


def photograph(segmenter: Segmenter, picture: Image.Image, rng: np.random.Generator, folder: Path) -> dict[str, Any]:
    """Seconds of a fresh and a kept answer, and IoU of the masks of further clicks by type of the kept numbers."""
    points = rng.uniform((0, 0), picture.size, (CLICKS, 1, 2))
    segmenter.set_image(picture)
    exact = [chosen(segmenter, point) for point in points]
    found: dict[str, Any] = {"fresh": _seconds(segmenter.set_image, picture) + _seconds(chosen, segmenter, points[0])}
    for dtype in DTYPES:
        path, other = segmenter.save_embedding(folder / f"{dtype}.npz", dtype), segmenter.clone()
        found[f"kept {dtype}"] = _seconds(other.load_embedding, path) + _seconds(chosen, other, points[0])
        masks = [chosen(other, point) for point in points]
        found[dtype] = [(a & b).sum() / max(1, (a | b).sum()) for a, b in zip(exact, masks, strict=True)]
    return found


def chosen(segmenter: Segmenter, point: Any) -> Any:
    """The mask of one click that a user gets."""
    return segmenter.predict(point, [1], multimask_output=None).masks[0]


def _seconds(work: Callable[..., Any], *arguments: Any) -> float:
    start = time.process_time()
    work(*arguments)
    return time.process_time() - start


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    top = argparse.ArgumentParser(prog="tinysam.evaluation.bench_embedding", description=__doc__)
    top.add_argument("artifacts", type=Path, help="artifact folder")
    top.add_argument("data", type=Path, help="folder with images/ and annotations.json")
    top.add_argument("--backend", choices=tuple(FORMATS), default=next(iter(FORMATS)))
    top.add_argument("--precision", choices=CHOICES, default="int8")
    top.add_argument("--threads", type=int, default=2)
    top.add_argument("--limit", type=int, default=20, help="photographs (default: %(default)s)")
    options = top.parse_args(arguments)
    choice = ModelChoice(options.backend, options.artifacts, options.precision, threads=options.threads)
    segmenter, rng = choice.open(), np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for photo in read_coco(options.data)[: options.limit]:
            with Image.open(photo.path) as picture:
                rows.append(photograph(segmenter, picture.convert("RGB"), rng, Path(folder)))
    for name in ("fresh", *(f"kept {dtype}" for dtype in DTYPES)):
        print(f"{name:<14} {1e3 * np.median([row[name] for row in rows]):7.1f} ms of CPU time")
    for dtype in DTYPES:
        values = np.array([value for row in rows for value in row[dtype]])
        print(
            f"{dtype:<14} mean IoU {values.mean():.4f}, lowest {values.min():.3f}, the same {np.mean(values == 1):.1%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
