"""Hierarchical against plain segment-everything: time, prompts, and IoU with annotated masks.

    python -m tinysam.evaluation.bench_hierarchical artifacts/nano-448 coco/val

For every annotated mask the best IoU of any mask found counts; the mean is over all annotated masks. Both modes see
each photograph one right after the other. CPU seconds are printed beside wall seconds: they mean more on a busy
machine.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tinysam.datasets.coco import read_coco
from tinysam.evaluation.everything import best_ious
from tinysam.evaluation.tasks import spread
from tinysam.runtime import Segmenter
from tinysam.runtime.everything.generator import segment_everything
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.run_command import run_command


@dataclass
class Total:
    """Sums over photographs."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    points: int = 0
    drawn: int = 0
    masks: int = 0
    relaxed: int = 0


def main() -> None:
    """Prints a line for each mode and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("data", type=Path, help="folder with annotations.json (COCO format) and images/")
    parser.add_argument("--limit", type=int, default=0, help="photographs, evenly spread over the set (0: all)")
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--precision", default="int8", choices=("int8", "fp32"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings than the model's")
    options = parser.parse_args()
    changes = {name: json.loads(value) for name, value in (pair.split("=") for pair in options.set)}
    segmenter = Segmenter(options.artifacts, options.backend, options.precision, options.threads)
    photos = spread(read_coco(options.data), options.limit)
    totals = {"plain": Total(), "hierarchical": Total()}
    ious: dict[str, list[float]] = {name: [] for name in totals}
    for photo in photos:
        with Image.open(photo.path) as opened:
            picture = opened.convert("RGB")
        for mode, total in totals.items():
            settings = EverythingSettings.of_model(
                segmenter.manifest.everything, hierarchical=mode == "hierarchical", **changes
            )
            wall, cpu = time.perf_counter(), time.process_time()
            found = segment_everything(segmenter, picture, settings)
            total.wall_s += time.perf_counter() - wall
            total.cpu_s += time.process_time() - cpu
            total.points += found.points
            total.drawn += found.drawn
            total.masks += len(found.masks)
            total.relaxed += bool(found.notes)
            ious[mode] += best_ious(found.masks, photo.masks)
    count = len(photos)
    print(f"{count} photographs, {len(ious['plain'])} annotated masks, {settings}")
    for mode, total in totals.items():
        print(
            f"{mode:<13} {total.wall_s / count:7.2f} s wall {total.cpu_s / count:7.2f} s cpu "
            f"{total.points / count:7.0f} prompts {total.drawn / count:6.0f} drawn {total.masks / count:6.1f} masks "
            f"mIoU {np.mean(ious[mode]):.4f}  relaxed {total.relaxed}"
        )
    plain, hierarchical = totals["plain"], totals["hierarchical"]
    print(
        f"hierarchical is {plain.wall_s / hierarchical.wall_s:.2f} times as fast by the clock, "
        f"{plain.cpu_s / hierarchical.cpu_s:.2f} by CPU time, with "
        f"{100 * np.mean(ious['hierarchical']) / np.mean(ious['plain']):.1f} % of the mean IoU"
    )


if __name__ == "__main__":
    sys.exit(run_command("bench_hierarchical", main))
