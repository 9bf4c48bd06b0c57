"""One picture or one video of a command line, from reading to writing."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.image import load_image
from tinysam.runtime.objects import ObjectPrompt, segment
from tinysam.runtime.outputs.write import write_result
from tinysam.runtime.quiet import quiet_native
from tinysam.runtime.results import Result
from tinysam.runtime.segmenter import Segmenter
from tinysam.runtime.sources import Source
from tinysam.runtime.tracking import Tracker


def run_one(
    source: Source,
    segmenter: Segmenter,
    prompts: list[ObjectPrompt],
    settings: EverythingSettings,
    options: argparse.Namespace,
) -> list[str]:
    """Reads, segments and writes one picture or video; returns the lines to print.

    Raises:
        TinySamError, EngineMissingError, FileNotFoundError: what is wrong with it, the model or the output folder.
    """
    if source.is_video:
        return _run_video(source, segmenter, prompts, options)
    times: dict[str, float] = {}
    with quiet_native(drop_all=True):
        photo = _timed(times, "decode image", lambda: load_image(source.path, options.max_pixels))
    with quiet_native():
        embedding = embedding_path(segmenter, source, options)
        result = segment(segmenter, photo.image, prompts, settings, Path(source.path).name, not options.raw, embedding)
    times |= result.timing_ms
    for note in (*photo.notes, *result.notes):
        print(f"tinysam-run: {source.path}: note: {note}", file=sys.stderr)
    written = _timed(
        times,
        "write",
        lambda: write_result(result, photo.for_overlay, Path(options.out), source.stem, options.format),
    )
    return _report(source, result, written, times, options.timing)


def embedding_path(segmenter: Segmenter, source: Source, options: argparse.Namespace) -> Path | None:
    """Where the embedding of a picture is kept, if that was asked for."""
    if options.embeddings is None:
        return None
    graphs = segmenter.graphs
    model = f"{graphs.manifest.variant}-{graphs.manifest.image_size}.{graphs.backend}.{graphs.precision}"
    return Path(options.embeddings) / f"{source.stem}.{model}.npz"


def _report(source: Source, result: Result, written: list[Path], times: dict[str, float], timing: bool) -> list[str]:
    count = len(result.masks)
    lines = [
        f"{source.path}: {count} mask{'' if count == 1 else 's'}, "
        f"{result.model} {result.backend} {result.precision}, {sum(times.values()):.0f} ms"
    ]
    lines += [f"  {path}" for path in written[:8]]
    lines += [f"  ... and {len(written) - 8} more"] if len(written) > 8 else []
    if timing:
        lines += [f"  {stage:<14}{duration:>9.1f} ms" for stage, duration in times.items()]
    return lines


def _run_video(
    source: Source, segmenter: Segmenter, prompts: list[ObjectPrompt], options: argparse.Namespace
) -> list[str]:
    from tinysam.runtime.video import follow, open_video, tracks_path

    tracker = Tracker(segmenter, prompts)
    target = Path(options.out) / f"{source.stem}.overlay.mp4"
    with_masks = "json" in options.format
    start = time.perf_counter()
    with quiet_native(drop_all=True):
        capture = open_video(source.path if source.camera is None else source.camera)
        try:
            count = follow(capture, tracker, target, with_masks, options.frames)
        finally:
            capture.release()
    seconds = time.perf_counter() - start
    lines = [f"{source.path}: {count} frames, {count / seconds:.1f} frames per second", f"  {target}"]
    return [*lines, f"  {tracks_path(target)}"] if with_masks else lines


def _timed(times: dict[str, float], stage: str, work: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    value = work()
    times[stage] = 1e3 * (time.perf_counter() - start)
    return value
