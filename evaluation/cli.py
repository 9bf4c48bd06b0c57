"""`tinysam-eval`: accuracy of a model on COCO-format images with masks."""

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path

from tinysam.evaluation import runner
from tinysam.evaluation.backends import BACKENDS, ModelChoice
from tinysam.evaluation.coco import DataError, read_coco
from tinysam.evaluation.detections import DetectionTask, read_detections
from tinysam.evaluation.everything import EverythingTask
from tinysam.evaluation.prompted import CLICKS, Protocol
from tinysam.evaluation.records import Records
from tinysam.evaluation.tasks import PromptedTask, Task, spread

TASKS = ("prompts", "everything", "detections")


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    p = argparse.ArgumentParser(prog="tinysam-eval", description=__doc__)
    p.add_argument("--data", type=Path, required=True, help="folder with annotations.json and images/")
    p.add_argument("--task", choices=TASKS, default="prompts")
    p.add_argument("--out", type=Path, help="folder for records and summary; a stopped run continues there")
    p.add_argument("--limit", type=int, default=0, help="photographs, evenly spread over the set (0: all)")
    p.add_argument("--max-masks", type=int, default=0, help="of a photograph, evenly spread over its list (0: all)")
    p.add_argument("--by", choices=("source", "size"), default="source", help="what the means are grouped by")
    model = p.add_argument_group("model")
    model.add_argument("--backend", choices=BACKENDS, default="onnx")
    model.add_argument("--artifacts", type=Path, help="artifact folder (onnx, tflite)")
    model.add_argument("--precision", choices=("int8", "fp32"), default="int8", help="(onnx, tflite)")
    model.add_argument("--variant", default="nano", help="(torch)")
    model.add_argument("--checkpoint", type=Path, help="weights (torch; default: the embedded ones)")
    model.add_argument("--image-size", type=int, help="side of the input (torch)")
    model.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    prompts = p.add_argument_group("prompts")
    prompts.add_argument("--no-box", action="store_true", help="leave out box prompts")
    prompts.add_argument("--clicks", type=int, nargs="*", default=list(CLICKS), help="numbers of clicks to report")
    everything = p.add_argument_group("everything")
    everything.add_argument("--points-per-side", type=int, help="(default: what was chosen for the model)")
    detections = p.add_argument_group("detections")
    detections.add_argument("--boxes", type=Path, help="a detector's boxes in COCO's results format")
    detections.add_argument("--single", action="store_true", help="use the single-mask output")
    return p


def task_of(args: argparse.Namespace) -> Task:
    """The measurement that was asked for; ValueError if the options do not fit it."""
    if any(n < 1 for n in args.clicks):
        raise ValueError(f"--clicks {' '.join(map(str, args.clicks))}: expected numbers from 1")
    if args.task == "everything":
        return EverythingTask(args.points_per_side, args.max_masks, args.by)
    if args.task == "detections":
        if args.boxes is None:
            raise DataError("--task detections needs --boxes with a detector's boxes")
        read_detections(args.boxes)
        return DetectionTask(args.data, args.boxes, args.single)
    if args.no_box and not args.clicks:
        raise ValueError("nothing to measure: --no-box without --clicks")
    return PromptedTask(Protocol(not args.no_box, tuple(args.clicks)), args.max_masks, args.by)


def run(args: argparse.Namespace) -> None:
    """Evaluates, writes records and summary, prints the figures."""
    task = task_of(args)
    choice = ModelChoice(
        args.backend, args.artifacts, args.precision, args.variant, args.checkpoint, args.image_size, args.threads
    )
    photos = spread(read_coco(args.data), args.limit)
    settings = {"model": choice.identity(), "task": repr(task), "data": str(args.data.resolve())}
    out = args.out or Path("runs") / time.strftime("eval-%Y%m%d-%H%M%S")
    records = Records(out / "records.jsonl", settings)
    start = time.monotonic()
    unreadable = runner.run(task, choice, photos, records)
    seconds = time.monotonic() - start
    wanted = [str(photo.id) for photo in photos]
    figures = task.figures(records.lines[key] for key in wanted if key in records)
    summary = {**settings, "unreadable": unreadable, "seconds": seconds, **figures.summary}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(figures.text)
    print(f"{len(photos) - unreadable} images, {seconds:.1f} s; records and summary in {out}")


def main() -> int:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        run(parser().parse_args())
    except (OSError, ValueError, RuntimeError) as error:
        print(f"tinysam-eval: {str(error).splitlines()[0] if str(error) else type(error).__name__}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
