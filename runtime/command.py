"""What `tinysam-run` does with its arguments.

1. Find the pictures; leave out those whose results are there, if that is asked for.
2. Open the model.
3. Read, segment and write one picture after the other. What is wrong with one does not end the others; what is wrong
   with the model, the engine or the folder of results ends the run.
4. Say what failed and what was passed over.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.errors import (
    EXIT_ARTIFACTS,
    EXIT_ENGINE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OUTPUT,
    EXIT_USAGE,
    ArtifactError,
    EngineMissingError,
    OutputError,
    OutputNameError,
    TinySamError,
)
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.image import STDIN, Photo, load_image
from tinysam.runtime.locate import find_artifacts
from tinysam.runtime.manifest import PARTS
from tinysam.runtime.objects import group_prompts, segment, segment_views
from tinysam.runtime.outputs import VIDEO_FORMATS
from tinysam.runtime.outputs.write import are_written, write_result
from tinysam.runtime.process import Interrupts, quiet_native, trim
from tinysam.runtime.prompts import ObjectPrompt
from tinysam.runtime.results import Result, add_times
from tinysam.runtime.segmenter import Segmenter
from tinysam.runtime.sources import Source, find_sources
from tinysam.runtime.terminal import Progress, fail, note, say
from tinysam.runtime.zoom import Views

_FATAL = {ArtifactError: EXIT_ARTIFACTS, EngineMissingError: EXIT_ENGINE, OutputError: EXIT_OUTPUT}
"""Errors that every further picture would meet as well, with their exit codes."""
_LARGE = 4_000_000
"""Pixels, of four bytes each, from which on it is worth decoding a photograph twice."""


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    interrupts, hint = Interrupts(), ""
    # The limit that counts is --max-pixels; Pillow's own could not be raised by it.
    Image.MAX_IMAGE_PIXELS = None
    try:
        prompts = group_prompts(options.point, options.box)
        found = find_sources(options.images, options.camera, options.out)
        if not found.pictures:
            return fail("no picture given; try tinysam-run photo.jpg, or --help", EXIT_USAGE)
        if len(found.pictures) > 1:
            hint = "; the same command with --skip-existing does the rest"
        _check_video_formats(found.pictures, options.format)
        pending = [source for source in found.pictures if not (options.skip_existing and _is_done(source, options))]
        code = 0
        if pending:
            code = _run_all(pending, open_segmenter(options), prompts, options, interrupts)
        skipped = len(found.pictures) - len(pending)
        if skipped and not options.quiet:
            say([f"{skipped} of {len(found.pictures)} pictures skipped: their results are there"])
        for one in found.passed_over:
            note(one.folder, one)
        return code
    except (TinySamError, EngineMissingError) as error:
        return fail(error, _FATAL.get(type(error), EXIT_USAGE))
    except OSError as error:
        return fail(error, EXIT_ARTIFACTS)
    except BaseException:
        if not interrupts.asked:
            raise
        return fail(f"interrupted{hint}", EXIT_INTERRUPTED)


def open_segmenter(options: argparse.Namespace) -> Segmenter:
    """The model, engine and precision that options ask for, or the best there is.

    Raises:
        FileNotFoundError, ArtifactError, EngineMissingError: see `Segmenter`.
    """
    segmenter = Segmenter(find_artifacts(options.model), options.backend, options.precision, options.threads)
    FORMATS[segmenter.graphs.backend].check_installed()
    for warning in segmenter.graphs.warnings():
        print(f"tinysam-run: warning: {warning}", file=sys.stderr)
    return segmenter


def _check_video_formats(sources: list[Source], formats: list[str]) -> None:
    unfit = [name for name in formats if name not in VIDEO_FORMATS]
    video = next((source for source in sources if source.is_video), None)
    if unfit and video:
        raise TinySamError(
            f"{video.path}: a video has no results of format {', '.join(unfit)}; expected {' or '.join(VIDEO_FORMATS)}"
        )


def _is_done(source: Source, options: argparse.Namespace) -> bool:
    is_stream = source.path == STDIN or source.camera is not None
    return not is_stream and are_written(Path(options.out), source.stem, options.format, source.is_video)


def _run_all(
    sources: list[Source],
    segmenter: Segmenter,
    prompts: list[ObjectPrompt],
    options: argparse.Namespace,
    interrupts: Interrupts,
) -> int:
    """Segments every picture; a summary follows if there are several."""
    settings = everything_settings(segmenter, options)
    save_memory = len(sources) == 1
    failures, worst = 0, 0
    with Progress(len(sources), sys.stderr, shown=not options.quiet) as progress:
        for source in sources:
            try:
                report = run_one(source, segmenter, prompts, settings, options, save_memory)
            except Exception as error:  # whatever is wrong with a picture, the next one gets its turn
                interrupts.check()
                progress.clear()
                code = fail(_message(error, source), _FATAL.get(type(error), EXIT_FAILED))
                if code != EXIT_FAILED:
                    return code
                failures += 1
                worst = max(worst, EXIT_OUTPUT if isinstance(error, OutputNameError) else EXIT_FAILED)
            else:
                progress.clear()
                if not options.quiet:
                    say(report)
            interrupts.check()
            progress.advance(source.path)
    if failures and len(sources) > 1:
        fail(f"{failures} of {len(sources)} pictures failed", worst)
    return worst


def everything_settings(segmenter: Segmenter, options: argparse.Namespace) -> EverythingSettings:
    """The model's settings with those changed that the command line names."""
    names = (
        "points_per_side",
        "points_per_batch",
        "pred_iou_thresh",
        "stability_score_thresh",
        "box_nms_thresh",
        "crop_n_layers",
        "min_mask_region_area",
    )
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return EverythingSettings.of_model(
        segmenter.manifest.everything, hierarchical=options.mode == "hierarchical", clean=not options.raw, **changes
    )


def run_one(
    source: Source,
    segmenter: Segmenter,
    prompts: list[ObjectPrompt],
    settings: EverythingSettings,
    options: argparse.Namespace,
    save_memory: bool = False,
) -> list[str]:
    """Reads, segments and writes one picture or video; returns the lines to print.

    With `save_memory`, for the only picture of a run, the model is not held while masks are drawn. With prompts a large
    photograph is not held while the model is, either: it is decoded again for the overlay, unless it is small enough
    to be what windows are cut from.

    Raises:
        TinySamError, EngineMissingError, FileNotFoundError: what is wrong with it, the model or the output folder.
    """
    if source.is_video:
        from tinysam.runtime.video import Tracker, run_video

        tracker = Tracker(segmenter, prompts, not options.raw)
        return run_video(source, tracker, Path(options.out), "json" in options.format, options.frames)
    times: dict[str, float] = {}
    photo = _decode(times, source, options)
    for what in photo.notes:
        note(source.path, what)
    embedding, name = embedding_path(segmenter, source, options), Path(source.path).name
    large = photo.image.width * photo.image.height >= _LARGE
    shown: Image.Image | None = None
    if save_memory and large and prompts and source.path != STDIN and embedding is None:
        views = Views.of(photo.image, segmenter.manifest, options.zoom_in)
        if views.copy is photo.image and "overlay" in options.format:
            shown = photo.for_overlay
        del photo
        result = _segment_in_little_memory(segmenter, views, prompts, name, not options.raw)
        del views
        if shown is None and "overlay" in options.format:
            shown = _decode(times, source, options).for_overlay
    else:
        with quiet_native():
            result = segment(
                segmenter,
                photo.image,
                prompts,
                settings,
                name,
                clean=not options.raw,
                zoom_in=options.zoom_in,
                embedding=embedding,
                release=save_memory,
            )
        shown = photo.for_overlay
    add_times(times, result.timing_ms)
    for what in result.notes:
        note(source.path, what)
    path = None if source.path == STDIN else Path(source.path)
    written = _run_timed(
        times,
        "write",
        lambda: write_result(result, shown, Path(options.out), source.stem, options.format, path),
    )
    return _report(source, result, written, times, options.timing)


def _segment_in_little_memory(
    segmenter: Segmenter,
    views: Views,
    prompts: list[ObjectPrompt],
    name: str,
    clean: bool,
) -> Result:
    """Segments a photograph by its views, each graph in memory only while it runs, see `segment_views`."""
    trim()
    with quiet_native():
        result = segment_views(segmenter, views, prompts, name, clean, release=True)
    for part in PARTS:
        segmenter.graphs.release(part)
    segmenter.reset_image()
    trim()
    return result


def _decode(times: dict[str, float], source: Source, options: argparse.Namespace) -> Photo:
    with quiet_native(drop_all=True):
        photo: Photo = _run_timed(times, "decode image", lambda: load_image(source.path, options.max_pixels))
    return photo


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


def _run_timed(times: dict[str, float], stage: str, work: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    value = work()
    add_times(times, {stage: 1e3 * (time.perf_counter() - start)})
    return value


def _message(error: BaseException, source: Source) -> str:
    if isinstance(error, MemoryError):
        return f"{source.path}: not enough memory; scale the picture down or use fewer --points-per-batch"
    text = str(error)
    if not isinstance(error, (TinySamError, EngineMissingError, OSError)):
        return f"{source.path}: unexpected {type(error).__name__}: {text[:200]}"
    return text if source.path in text or isinstance(error, (ArtifactError, OutputError)) else f"{source.path}: {text}"
