"""`python -m tinysam.evaluation.everything_agreement`: how many fp32 masks of segment-everything INT8 finds again.

Every photograph is segmented with a plain grid by the fp32 ONNX files and by each candidate. A mask of the reference
is found again if some mask of the candidate has an IoU with it of at least the level asked for.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tinysam.datasets.coco import read_coco
from tinysam.datasets.reading import prefetch, read_photo
from tinysam.evaluation.agreement import comparison_parser, open_models
from tinysam.evaluation.tasks import spread
from tinysam.runtime.everything.generator import segment_everything
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.process import run_command

LEVELS = (0.8, 0.9)
"""IoU from which a mask counts as found again."""


def best_matches(expected: NDArray[np.bool_], found: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N, pixels) and (M, pixels) masks -> (N,) the highest IoU of any found mask with each expected one."""
    if not len(found):
        return np.zeros(len(expected))
    a, b = expected.astype(np.float32), found.astype(np.float32)
    both = (a @ b.T).astype(np.float64)
    either = a.sum(1)[:, None] + b.sum(1)[None] - both
    best: NDArray[np.float64] = (both / np.maximum(either, 1)).max(1)
    return best


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    return comparison_parser("everything_agreement", __doc__, limit=20)


def run(arguments: argparse.Namespace) -> None:
    """Compares all candidates and prints a table."""
    reference, candidates = open_models(arguments)
    settings = EverythingSettings.of_model(reference.manifest.everything, hierarchical=False)
    photos = spread(read_coco(arguments.data), arguments.limit)
    matches: dict[str, list[NDArray[np.float64]]] = {name: [] for name in candidates}
    for _, picture in tqdm(prefetch(read_photo, photos), total=len(photos), unit="photo"):
        if picture is None:
            continue
        expected, *found = (
            np.array([mask.mask().ravel() for mask in segment_everything(one, picture, settings).masks])
            for one in (reference, *candidates.values())
        )
        for name, masks in zip(candidates, found, strict=True):
            matches[name].append(best_matches(expected, masks))
    report(len(photos), {name: np.concatenate(values) for name, values in matches.items()}, arguments.json)


def report(photos: int, matches: dict[str, NDArray[np.float64]], path: Path | None) -> None:
    """Prints the shares, and writes them to `path`."""
    shares = {name: {str(level): float((best >= level).mean()) for level in LEVELS} for name, best in matches.items()}
    print(f"{photos} photographs, {len(next(iter(matches.values())))} fp32 masks\n")
    print("| | " + " | ".join(f"found again at IoU {level}" for level in LEVELS) + " |")
    print("| --- |" + " ---: |" * len(LEVELS))
    for name, row in shares.items():
        print(f"| {name} | " + " | ".join(f"{100 * share:.1f} %" for share in row.values()) + " |")
    if path:
        path.write_text(json.dumps(shares, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    arguments = parser().parse_args(argv)
    return run_command("everything_agreement", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
