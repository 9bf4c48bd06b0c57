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
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tinysam.calibration.feeds import image_feed
from tinysam.calibration.images import load_image_set
from tinysam.export.engine import FeedModel, open_files
from tinysam.export.pipeline import export
from tinysam.export.reference import Reference, ReferenceCase
from tinysam.export.settings import ExportSettings
from tinysam.export.tensors import cut
from tinysam.export.torch_model import TorchModel
from tinysam.models.checkpoint import load
from tinysam.models.variants import build, get_variant
from tinysam.runtime.bench.limit import GMAC as PRODUCT_GMAC
from tinysam.runtime.bench.limit import PRECISIONS, product_jobs
from tinysam.runtime.bench.macs import click_macs
from tinysam.runtime.bench.report import machine
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.manifest import PARTS, Manifest, read_manifest

Job = Callable[[], Any]

SUBJECTS = (("nano", 448), ("tinysam", 1024))


def bench_settings(name: str, size: int, out: Path) -> ExportSettings:
    """Settings of the export for this machine's processor, all in INT8; writes random parameters if there are none."""
    variant = get_variant(name)
    checkpoint = None
    if variant.embedded is None:
        checkpoint = out / f"{name}-random.pth"
        if not checkpoint.is_file():
            torch.manual_seed(0)
            out.mkdir(parents=True, exist_ok=True)
            torch.save(build(variant, size).state_dict(), checkpoint)
    return ExportSettings(
        variant=variant,
        checkpoint=checkpoint,
        image_size=size,
        precisions=("fp32", "int8"),
        formats=tuple(FORMATS),
        target="arm" if platform.machine() in ("aarch64", "arm64") else "x86",
        calib=None,
        calib_count=4,
        out=out,
        max_drop=None,  # random parameters give noise for masks
    )


def candidates(settings: ExportSettings, manifest: Manifest, threads: int) -> dict[str, FeedModel]:
    """The plain PyTorch model, and the files of every engine and precision."""
    sam = load(settings.variant, settings.checkpoint, settings.image_size)
    found = {"torch eager": FeedModel(TorchModel(sam, manifest))}
    for engine in settings.formats:
        for precision in settings.precisions:
            pair = [manifest.find(part, engine, precision) for part in PARTS]
            found[f"{engine} {precision}"] = FeedModel(open_files(settings.folder, manifest, pair, threads))
    return found


def encoder_jobs(models: dict[str, FeedModel], case: ReferenceCase) -> dict[str, Job]:
    """One encoder run per candidate."""
    images = {name: model.model.encoder_input(case.feed.pixels) for name, model in models.items()}
    return {name: partial(model.model.encode, images[name]) for name, model in models.items()}


def decoder_jobs(models: dict[str, FeedModel], case: ReferenceCase) -> dict[str, Job]:
    """One decoder run with one click per candidate."""
    click = cut(case.prompts[0], 1)
    embeddings = {name: model.model.embedding_from_nchw(case.embedding) for name, model in models.items()}
    return {name: partial(model.decode, embeddings[name], click) for name, model in models.items()}


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
    settings = bench_settings(name, size, out)
    export(settings)
    manifest = read_manifest(settings.folder)
    image = load_image_set(None, 1, long_side=size).images[0]
    case = Reference(load(settings.variant, settings.checkpoint, size), settings.mask_tokens).case(
        image_feed(image, manifest), seed=0
    )
    models = candidates(settings, manifest, threads)
    jobs = {"encoder": encoder_jobs(models, case), "decoder": decoder_jobs(models, case)}
    columns = {}
    for part in PARTS:
        file = next(file for file in manifest.files if (file.part, file.precision) == (part, "fp32"))
        gmac = click_macs(settings.folder / file.path, file) / 1e9
        columns[f"{name} {size} {part}"] = measure_part(jobs[part], gmac, threads, repeats)
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
