"""`make bench`: encoder and decoder in every engine and precision against eager PyTorch, side by side in one run.

All candidates are run in turn, over and over, so that a busy moment of the machine hits every one of them; the ratio of
medians is what to look at. A large matrix product in fp32 and in int8 takes its turn as well: its rate is what the
machine can do at best, and each candidate is shown as a fraction of it. TinyViT-5M has random parameters here, which
does not change its time.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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
from tinysam.runtime.bench.limit import GMAC as PRODUCT_GMAC
from tinysam.runtime.bench.limit import PRECISIONS, product_jobs
from tinysam.runtime.bench.macs import click_macs
from tinysam.runtime.bench.report import machine
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


@dataclass(frozen=True)
class Column:
    """One part of one model: what its candidates took in one run."""

    gmac: float
    """Multiply-accumulates of the part, in thousand millions."""
    seconds: dict[str, float]
    """Median of each candidate."""
    product_gmac_s: dict[str, float]
    """Rate of a large matrix product by precision, of the fastest engine, in the same run."""

    def cell(self, candidate: str) -> str:
        """Milliseconds, ratio to eager PyTorch, GMAC/s and fraction of the product's rate."""
        seconds = self.seconds[candidate]
        rate = self.gmac / seconds
        limit = self.product_gmac_s["int8" if candidate.endswith("int8") else "fp32"]
        ratio = self.seconds["torch eager"] / seconds
        return f"{1000 * seconds:.1f} ms ({ratio:.2f} x), {rate:.1f} GMAC/s, {rate / limit:.2f}"


def table(columns: dict[str, Column]) -> str:
    """Markdown: one line per candidate, one column per part of a model."""
    first = next(iter(columns.values()))
    titles = [f"{name} ({column.gmac:.2f} GMAC)" for name, column in columns.items()]
    lines = ["| | " + " | ".join(titles) + " |", "| --- |" + " --- |" * len(columns)]
    for candidate in first.seconds:
        cells = [column.cell(candidate) for column in columns.values()]
        lines.append(f"| {candidate} | " + " | ".join(cells) + " |")
    for precision in first.product_gmac_s:
        cells = [f"{column.product_gmac_s[precision]:.1f} GMAC/s" for column in columns.values()]
        lines.append(f"| {precision} matrix product | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure_part(jobs: dict[str, Job], gmac: float, threads: int, repeats: int) -> Column:
    """Candidates and matrix products in turn."""
    products = {precision: product_jobs(precision, threads) for precision in PRECISIONS}
    flat = {f"product {precision} {name}": job for precision in products for name, job in products[precision].items()}
    times = median_times(jobs | flat, repeats)
    rates = {
        precision: PRODUCT_GMAC / min(times[f"product {precision} {name}"] for name in products[precision])
        for precision in PRECISIONS
    }
    return Column(gmac, {name: times[name] for name in jobs}, rates)


def measure(name: str, size: int, out: Path, threads: int, repeats: int) -> dict[str, Column]:
    """Both parts of a model."""
    settings = prepared(name, size, out)
    manifest = read_manifest(settings.folder)
    image = load_image_set(None, 1, long_side=size).images[0]
    case = Reference(load(settings.variant, settings.checkpoint, size), settings.mask_tokens).case(
        image_feed(image, manifest), seed=0
    )
    case = replace(case, prompts=case.prompts[:1])
    makers = {"encoder": encoder_jobs, "decoder": decoder_jobs}
    columns = {}
    for part, make in makers.items():
        file = manifest.find(part, "onnx", "fp32")
        gmac = click_macs(settings.folder / file.path, file) / 1e9
        columns[f"{name} {size} {part}"] = measure_part(make(settings, manifest, case, threads), gmac, threads, repeats)
    return columns


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m tinysam.export.bench`."""
    options = argparse.ArgumentParser(prog="python -m tinysam.export.bench", description=__doc__)
    options.add_argument("--out", type=Path, default=Path("build/bench"), help="where the models are kept")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--json", type=Path, help="also write the seconds here")
    arguments = options.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    columns: dict[str, Column] = {}
    for name, size in SUBJECTS:
        columns |= measure(name, size, arguments.out, arguments.threads, arguments.repeats)
    about = machine()
    print(f"{about['processor']}, {about['architecture']}, {arguments.threads} threads, median of ", end="")
    print(f"{arguments.repeats}; (ratio to eager PyTorch), rate, fraction of the matrix product's rate\n")
    print(table(columns))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({name: asdict(column) for name, column in columns.items()}, indent=2) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
