"""What `tinysam-run` does with its arguments."""

import argparse
import os
import sys

from PIL import Image

from tinysam.runtime import cli
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.errors import ArtifactError, EngineMissingError, ImageError, OutputError, TinySamError
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.interrupts import Interrupts
from tinysam.runtime.jobs import run_one
from tinysam.runtime.locate import find_artifacts
from tinysam.runtime.objects import ObjectPrompt, group_prompts
from tinysam.runtime.progress import Progress
from tinysam.runtime.segmenter import Segmenter
from tinysam.runtime.sources import Source, find_sources

_FATAL = {ArtifactError: cli.EXIT_ARTIFACTS, EngineMissingError: cli.EXIT_ENGINE, OutputError: cli.EXIT_OUTPUT}
"""Errors that every further picture would meet as well, with their exit codes."""


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    interrupts = Interrupts()
    # The limit that counts is --max-pixels; Pillow's own could not be raised by it.
    Image.MAX_IMAGE_PIXELS = None
    try:
        prompts = group_prompts(options.point, options.box)
        sources = find_sources(options.images, options.camera)
        if not sources:
            return _fail("no picture given; try tinysam-run photo.jpg, or --help", cli.EXIT_USAGE)
        segmenter = open_segmenter(options)
    except FileNotFoundError as error:
        return _fail(error, cli.EXIT_ARTIFACTS)
    except (TinySamError, EngineMissingError) as error:
        return _fail(error, _FATAL.get(type(error), cli.EXIT_USAGE))
    try:
        return _run_all(sources, segmenter, prompts, options, interrupts)
    except BaseException:
        if not interrupts.asked:
            raise
        return _fail("interrupted", cli.EXIT_INTERRUPTED)


def open_segmenter(options: argparse.Namespace) -> Segmenter:
    """The model, engine and precision that options ask for, or the best there is.

    Raises:
        FileNotFoundError, ArtifactError, EngineMissingError: see `Segmenter`.
    """
    segmenter = Segmenter(find_artifacts(options.model), options.backend, options.precision, options.threads)
    FORMATS[segmenter.graphs.backend].check_installed()
    return segmenter


def _run_all(
    sources: list[Source],
    segmenter: Segmenter,
    prompts: list[ObjectPrompt],
    options: argparse.Namespace,
    interrupts: Interrupts,
) -> int:
    """Segments every picture; a summary follows if there are several."""
    settings = everything_settings(segmenter, options)
    failures = 0
    with Progress(len(sources), sys.stderr, shown=not options.quiet) as progress:
        for source in sources:
            try:
                report = run_one(source, segmenter, prompts, settings, options)
            except (ImageError, TinySamError, EngineMissingError, OSError, MemoryError) as error:
                interrupts.check()
                progress.clear()
                code = _fail(_message(error, source), _FATAL.get(type(error), cli.EXIT_FAILED))
                if code != cli.EXIT_FAILED:
                    return code
                failures += 1
            else:
                progress.clear()
                if not options.quiet:
                    _say(report)
            interrupts.check()
            progress.advance(source.path)
    if failures and len(sources) > 1:
        _fail(f"{failures} of {len(sources)} pictures failed", cli.EXIT_FAILED)
    return cli.EXIT_FAILED if failures else 0


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


def _say(lines: list[str]) -> None:
    """Prints; goes on in silence if whoever was listening has left (`tinysam-run ... | head`)."""
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _message(error: BaseException, source: Source) -> str:
    if isinstance(error, MemoryError):
        return f"{source.path}: not enough memory; scale the picture down or use fewer --points-per-batch"
    text = str(error)
    return text if source.path in text or isinstance(error, (ArtifactError, OutputError)) else f"{source.path}: {text}"


def _fail(message: object, code: int) -> int:
    print(f"tinysam-run: error: {' '.join(str(message).split())}", file=sys.stderr)
    return code
