"""`make bench`: encoder and decoder in every engine and precision against eager PyTorch, side by side in one run.

All candidates are run in turn, over and over, so that a busy moment of the machine hits every one of them; the ratio of
medians is what to look at. TinyViT-5M has random parameters here, which does not change its time.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tinysam.calibration.feeds import image_feed
from tinysam.calibration.images import load_image_set
from tinysam.export.engine import load_engine
from tinysam.export.pipeline import export
from tinysam.export.reference import Reference, ReferenceCase
from tinysam.export.settings import ExportSettings
from tinysam.export.tensors import ENCODE, decoder_inputs, encoder_inputs
from tinysam.models.checkpoint import load
from tinysam.models.variants import build, get_variant
from tinysam.runtime.contract import decode_name
from tinysam.runtime.manifest import Manifest, read_manifest

Job = Callable[[], Any]

SUBJECTS = (("nano", 448), ("tinysam", 1024))
KINDS = (("onnx", "fp32"), ("onnx", "int8"), ("tflite", "fp32"), ("tflite", "int8"))


def prepared(name: str, size: int, out: Path) -> ExportSettings:
    """Exports the model for this machine's processor, unless that has been done; its settings."""
    variant = get_variant(name)
    checkpoint = None
    if variant.embedded is None:
        checkpoint = out / f"{name}-random.pth"
        if not checkpoint.is_file():
            torch.manual_seed(0)
            out.mkdir(parents=True, exist_ok=True)
            torch.save(build(variant, size).state_dict(), checkpoint)
    settings = ExportSettings(
        variant=variant,
        checkpoint=checkpoint,
        image_size=size,
        precisions=("fp32", "int8"),
        formats=("onnx", "tflite"),
        target="arm" if platform.machine() in ("aarch64", "arm64") else "x86",
        calib=None,
        calib_count=4,
        out=out,
        least_mask_iou=0.0,  # random parameters give noise for masks
    )
    export(settings)
    return settings


def encoder_jobs(settings: ExportSettings, manifest: Manifest, case: ReferenceCase, threads: int) -> dict[str, Job]:
    """One encoder run per candidate."""
    sam = load(settings.variant, settings.checkpoint, settings.image_size)
    reference = Reference(sam, settings.mask_tokens)
    jobs: dict[str, Job] = {"torch eager": lambda: reference.encode(case.image)}
    for engine, precision in KINDS:
        file = manifest.find("encoder", engine, precision)
        model = load_engine(settings.folder, file, threads)
        name, inputs = ("" if engine == "onnx" else ENCODE), encoder_inputs(engine, case.image)
        jobs[f"{engine} {precision}"] = lambda m=model, n=name, i=inputs: m.run(n, i)  # type: ignore[misc]
    return jobs


def decoder_jobs(settings: ExportSettings, manifest: Manifest, case: ReferenceCase, threads: int) -> dict[str, Job]:
    """One decoder run with one click per candidate."""
    sam = load(settings.variant, settings.checkpoint, settings.image_size)
    reference = Reference(sam, settings.mask_tokens)
    click = {k: v[:1] if k.startswith("point") else v for k, v in case.prompts[0].items()}
    jobs: dict[str, Job] = {"torch eager": lambda: reference.decode(case.embedding, click)}
    for engine, precision in KINDS:
        file = manifest.find("decoder", engine, precision)
        model = load_engine(settings.folder, file, threads)
        name = "" if engine == "onnx" else decode_name(1, 2)
        inputs = decoder_inputs(engine, case.embedding, click)
        jobs[f"{engine} {precision}"] = lambda m=model, n=name, i=inputs: m.run(n, i)  # type: ignore[misc]
    return jobs


def median_times(jobs: dict[str, Job], repeats: int) -> dict[str, float]:
    """Median seconds of each job; all take turns, after one warm-up each."""
    for job in jobs.values():
        job()
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown: one line per candidate, milliseconds and ratio to eager PyTorch per column."""
    columns = list(rows)
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name in rows[columns[0]]:
        cells = []
        for column in columns:
            seconds = rows[column][name]
            cells.append(f"{1000 * seconds:.1f} ms ({rows[column]['torch eager'] / seconds:.2f} x)")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure(name: str, size: int, out: Path, threads: int, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds by part and candidate."""
    settings = prepared(name, size, out)
    manifest = read_manifest(settings.folder)
    image = load_image_set(None, 1, long_side=size).images[0]
    case = Reference(load(settings.variant, settings.checkpoint, size), settings.mask_tokens).case(
        image_feed(image, manifest), seed=0
    )
    case = replace(case, prompts=case.prompts[:1])
    return {
        f"{name} {size} encoder": median_times(encoder_jobs(settings, manifest, case, threads), repeats),
        f"{name} {size} decoder": median_times(decoder_jobs(settings, manifest, case, threads), repeats),
    }


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m tinysam.export.bench`."""
    options = argparse.ArgumentParser(prog="python -m tinysam.export.bench", description=__doc__)
    options.add_argument("--out", type=Path, default=Path("build/bench"), help="where the models are kept")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--json", type=Path, help="also write the seconds here")
    arguments = options.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    rows: dict[str, dict[str, float]] = {}
    for name, size in SUBJECTS:
        rows |= measure(name, size, arguments.out, arguments.threads, arguments.repeats)
    print(f"{platform.machine()}, {arguments.threads} threads, median of {arguments.repeats}, ratio to eager PyTorch\n")
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
