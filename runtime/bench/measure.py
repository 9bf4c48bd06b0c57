"""Measures the stages of one engine, precision and number of threads, in this process."""

import io
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tinysam.runtime import engines
from tinysam.runtime.bench.limit import product_precision, product_rate
from tinysam.runtime.bench.macs import click_macs
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.everything.generator import segment_everything
from tinysam.runtime.graphs import file_precision
from tinysam.runtime.image import load_image
from tinysam.runtime.locate import find_artifacts
from tinysam.runtime.manifest import ENGINES, PARTS, PRECISIONS, read_manifest
from tinysam.runtime.objects import segment
from tinysam.runtime.outputs.pictures import draw_overlay
from tinysam.runtime.preprocess import resize
from tinysam.runtime.prompts import ObjectPrompt
from tinysam.runtime.segmenter import Segmenter

SYNTHETIC_SIZE = (1920, 1280)
"""(width, height) of the picture that is used if none is given."""


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    model: str
    """Artifact folder."""
    backend: str
    precision: str
    threads: int


def find_cases(
    model: str | None, backends: Sequence[str] | None, precisions: Sequence[str] | None, threads: Sequence[int] | None
) -> list[Case]:
    """Combinations that the model has files for; engines that are not installed count only if they are named.

    Raises:
        FileNotFoundError, ArtifactError: see `tinysam.runtime.Segmenter`.
        EngineMissingError: a named engine is not installed.
        ValueError: nothing is left to measure.
    """
    folder = find_artifacts(model)
    have = {(file.engine, file.precision) for file in read_manifest(folder).files}
    for backend in backends or ():
        if backend in FORMATS:
            FORMATS[backend].check_installed()
    cases = [
        Case(str(folder), backend, precision, count)
        for backend in (backends or [engine for engine in ENGINES if engines.installed(engine)])
        for precision in (precisions or PRECISIONS)
        for count in (threads or [engines.usable_cores()])
        if (backend, precision) in have
    ]
    if not cases:
        listed = ", ".join(sorted(f"{engine} {precision}" for engine, precision in have))
        raise ValueError(f"nothing to measure: {folder} has {listed}")
    return cases


def measure(case: Case, image: str | None, repeats: int, everything: bool) -> dict[str, Any]:
    """Milliseconds of each stage, and memory.

    Returns:
        `stages_ms` (name -> median, p95), `load_ms` (name -> once), `first_result_ms`, `rss_mb` (what -> MB),
        `image_size` (width, height), `gmac` (stage -> of one run), `product` and `product_gmac_s` (precision and
        rate of the large matrix product that was measured in this process), and `everything` (ms, prompts, masks) if
        asked for.
    """
    rss = {"started": _rss_mb()}
    source = Path(image) if image else _synthetic()
    segmenter = Segmenter(case.model, case.backend, case.precision, case.threads)
    start = time.perf_counter()
    photo = _load(source)
    load_ms = {part: segmenter.graphs.load(part) for part in ("encoder", "decoder")}
    rss["loaded"] = _rss_mb()
    width, height = photo.size
    box = (width * 0.25, height * 0.25, width * 0.75, height * 0.75)
    result = segment(segmenter, photo, [ObjectPrompt(box=box)], zoom_in=False)
    first_ms = 1e3 * (time.perf_counter() - start)
    frame = segmenter.frame
    pixels = resize(photo, frame)
    inputs = segmenter.graphs.encoder_input(pixels)
    decoder_prompts = segmenter.prompts(boxes=[box])
    low_res, _ = segmenter.decode(decoder_prompts)
    work: dict[str, Callable[[], Any]] = {
        "decode image": lambda: _load(source),
        "resize": lambda: segmenter.graphs.encoder_input(resize(photo, frame)),
        "encoder": lambda: segmenter.graphs.encode(inputs),
        "decoder": lambda: segmenter.decode(decoder_prompts),
        "postprocess": lambda: frame.upscaler.masks(low_res),
        "write overlay": lambda: _overlay(photo, result),
    }
    stages = {name: _times(stage, repeats) for name, stage in work.items()}
    rss["prompts"] = _rss_mb()
    figures: dict[str, Any] = {
        "image_size": [width, height],
        "stages_ms": stages,
        "load_ms": load_ms,
        "first_result_ms": first_ms,
        "rss_mb": rss,
        "gmac": _gmac(segmenter, Path(case.model)),
        "product": product_precision(case.precision),
        "product_gmac_s": product_rate(case.precision, case.threads),
    }
    if everything:
        begin = time.perf_counter()
        found = segment_everything(segmenter, photo)
        duration = 1e3 * (time.perf_counter() - begin)
        figures["everything"] = {"ms": duration, "prompts": found.points, "masks": len(found.masks)}
        rss["everything"] = _rss_mb()
    return figures


def _gmac(segmenter: Segmenter, folder: Path) -> dict[str, float]:
    """Of the stages that run a graph; empty if this engine's package cannot read its files."""
    manifest, graphs = segmenter.manifest, segmenter.graphs
    files = {part: manifest.find(part, graphs.backend, file_precision(graphs.precision, part)) for part in PARTS}
    try:
        return {part: click_macs(folder / file.path, file) / 1e9 for part, file in files.items()}
    except ImportError:
        return {}


def _times(stage: Callable[[], Any], repeats: int) -> dict[str, float]:
    stage()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        stage()
        times.append(1e3 * (time.perf_counter() - start))
    return {"median": float(np.median(times)), "p95": float(np.percentile(times, 95))}


def _load(source: Path | bytes) -> Image.Image:
    if isinstance(source, Path):
        return load_image(source).image
    return Image.open(io.BytesIO(source)).convert("RGB")


def _synthetic() -> bytes:
    """A JPEG with smooth areas and edges, always the same."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 18, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(SYNTHETIC_SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _overlay(photo: Image.Image, result: Any) -> None:
    picture = photo.copy()
    draw_overlay(picture, result)
    picture.save(io.BytesIO(), "JPEG", quality=92)


def _rss_mb() -> float:
    """Peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
