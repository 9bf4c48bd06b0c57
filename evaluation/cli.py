"""`tinysam-eval`: accuracy of a model on COCO-format images with masks."""

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tinysam.datasets.coco import DataError, Photo, read_coco, read_folder
from tinysam.datasets.coco_files import annotation_file
from tinysam.evaluation import ray_engine
from tinysam.evaluation.backends import BACKENDS, ModelChoice
from tinysam.evaluation.detections import DetectionTask, read_detections
from tinysam.evaluation.everything import AnnotateTask, EverythingTask
from tinysam.evaluation.prompted import CLICKS, Protocol
from tinysam.evaluation.records import Records, run_here
from tinysam.evaluation.sweep import SWEPT, SweepTask, Values
from tinysam.evaluation.tasks import PromptedTask, Task, spread
from tinysam.runtime.atomic import write_atomically
from tinysam.runtime.engines import usable_cores
from tinysam.runtime.engines.formats import DEFAULT
from tinysam.runtime.graphs import CHOICES
from tinysam.runtime.manifest import sha256_file
from tinysam.runtime.process import run_command

TASKS = ("prompts", "everything", "sweep", "detections", "annotate")

EVERYTHING = ("points_per_side", "pred_iou_thresh", "stability_score_thresh", "box_nms_thresh")
"""Settings of segment-everything that may be changed."""


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    p = argparse.ArgumentParser(prog="tinysam-eval", description=__doc__)
    p.add_argument(
        "--data", type=Path, required=True, help="COCO set or its annotation file; folder of pictures (annotate)"
    )
    p.add_argument("--task", choices=TASKS, default="prompts")
    p.add_argument("--out", type=Path, help="folder for records and summary; a stopped run continues there")
    p.add_argument("--limit", type=int, default=0, help="photographs, evenly spread over the set (0: all)")
    p.add_argument("--max-masks", type=int, default=0, help="of a photograph, evenly spread over its list (0: all)")
    p.add_argument("--by", choices=("source", "size"), default="source", help="what the means are grouped by")
    p.add_argument("--engine", choices=("local", "ray"), default="local", help="where: this process, or a Ray cluster")
    p.add_argument("--workers", type=int, default=2, help="models at work at the same time (ray)")
    model = p.add_argument_group("model")
    model.add_argument("--backend", choices=BACKENDS, default=DEFAULT)
    model.add_argument("--artifacts", type=Path, help="artifact folder (onnx, tflite)")
    model.add_argument("--precision", choices=CHOICES, default="int8", help="(onnx, tflite; fp16: tflite)")
    model.add_argument("--variant", default="nano", help="(torch)")
    model.add_argument("--checkpoint", type=Path, help="weights (torch; default: the embedded ones)")
    model.add_argument("--image-size", type=int, help="side of the input (torch)")
    model.add_argument("--threads", type=int, default=usable_cores())
    prompts = p.add_argument_group("prompts")
    prompts.add_argument("--no-box", action="store_true", help="leave out box prompts")
    prompts.add_argument("--clicks", type=int, nargs="*", default=list(CLICKS), help="numbers of clicks to report")
    prompts.add_argument(
        "--no-zoom-in", dest="zoom_in", action="store_false", help="one look at the whole photograph, as tinysam-run's"
    )
    everything = p.add_argument_group("everything, annotate")
    for name in EVERYTHING:
        kind = int if name == "points_per_side" else float
        everything.add_argument(
            f"--{name.replace('_', '-')}", type=kind, help="(default: what was chosen for the model)"
        )
    sweep = p.add_argument_group("sweep")
    sweep.add_argument(
        "--values",
        nargs="*",
        default=["coarse_logit_thresh=2,2.5,3,4,6,8.5"],
        metavar="NAME=V1,V2",
        help=f"thresholds to try, all combinations: {', '.join(SWEPT)}",
    )
    detections = p.add_argument_group("detections")
    detections.add_argument("--boxes", type=Path, help="a detector's boxes in COCO's results format")
    detections.add_argument("--single", action="store_true", help="use the single-mask output")
    return p


def task_of(args: argparse.Namespace) -> Task:
    """The measurement that was asked for; ValueError if the options do not fit it."""
    for name in ("limit", "max_masks"):
        if getattr(args, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected 0 (all) or more")
    if any(n < 1 for n in args.clicks):
        raise ValueError(f"--clicks {' '.join(map(str, args.clicks))}: expected numbers from 1")
    changes = tuple((name, getattr(args, name)) for name in EVERYTHING if getattr(args, name) is not None)
    if args.task == "annotate":
        return AnnotateTask(changes)
    if args.task == "everything":
        return EverythingTask(changes, args.max_masks, args.by)
    if args.task == "sweep":
        return SweepTask(values_of(args.values))
    if args.task == "detections":
        if args.boxes is None:
            raise DataError("--task detections needs --boxes with a detector's boxes")
        read_detections(args.boxes)
        return DetectionTask(args.data, args.boxes, args.single)
    if args.no_box and not args.clicks:
        raise ValueError("nothing to measure: --no-box without --clicks")
    return PromptedTask(Protocol(not args.no_box, tuple(args.clicks), args.zoom_in), args.max_masks, args.by)


def values_of(texts: list[str]) -> Values:
    """`NAME=V1,V2` as names and numbers; ValueError for others."""
    found = []
    for text in texts:
        name, _, values = text.partition("=")
        try:
            numbers = tuple(float(value) for value in values.split(","))
        except ValueError:
            numbers = ()
        if name not in SWEPT or not numbers:
            raise ValueError(f"--values {text}: expected NAME=V1,V2 with a NAME of {', '.join(SWEPT)}")
        found.append((name, numbers))
    return tuple(found)


def run(args: argparse.Namespace) -> None:
    """Evaluates, writes records and summary, prints the figures."""
    task = task_of(args)
    choice = ModelChoice(
        args.backend, args.artifacts, args.precision, args.variant, args.checkpoint, args.image_size, args.threads
    )
    photos = spread(photos_of(args.task, args.data), args.limit)
    settings = {"model": choice.identity(), "task": repr(task), "data": str(args.data.resolve()), **hashes(args)}
    out = args.out or Path("runs") / time.strftime("eval-%Y%m%d-%H%M%S")
    start = time.monotonic()
    if args.engine == "ray":
        found = on_ray(ray_engine.Job(task, choice, photos, settings, out.resolve() / "parts"), args.workers)
    else:
        found = run_here(task, choice, photos, Records(out / "records.jsonl", settings))
    seconds = time.monotonic() - start
    kept = [found[key] for key in map(str, (photo.id for photo in photos)) if found.get(key) is not None]
    figures = task.figures(kept)
    unreadable = len(photos) - len(kept)
    summary = {**settings, "images": len(kept), "unreadable": unreadable, "seconds": seconds, **figures.summary}
    write(out / "summary.json", summary)
    if figures.coco is not None:
        write(out / "annotations.json", figures.coco)
    print(figures.text)
    print(f"{len(kept)} images, {unreadable} unreadable, {seconds:.1f} s; results in {out}")


def photos_of(task: str, folder: Path) -> list[Photo]:
    """What the task looks at: pictures of a folder, photographs with masks, or for detections all of a set."""
    return read_folder(folder) if task == "annotate" else read_coco(folder, bare=task == "detections")


def hashes(args: argparse.Namespace) -> dict[str, str]:
    """SHA-256 of the files that records depend on besides the model's: annotations, and a detector's boxes."""
    files = {"annotations": annotation_file(args.data)} if args.task != "annotate" else {}
    if args.task == "detections":
        files["boxes"] = args.boxes
    return {name: sha256_file(path) for name, path in files.items()}


def on_ray(job: ray_engine.Job, workers: int) -> dict[str, Any]:
    """Records of all photographs, made on Ray's workers."""
    with tqdm(total=len(job.photos), unit="image", disable=None) as bar:
        for count in ray_engine.run(job, workers):
            bar.update(count)
    return ray_engine.records(job)


def write(path: Path, content: dict[str, Any]) -> None:
    """Json, complete or not at all."""
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def main() -> int:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    stopped = "stopped; the same command with the same --out continues"
    return run_command("tinysam-eval", lambda: run(parser().parse_args()), stopped)


if __name__ == "__main__":
    sys.exit(main())
