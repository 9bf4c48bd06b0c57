"""`python -m tinysam.distillation.compare_methods`: training methods of the papers, at a scale one machine can do.

The student is the teacher's architecture with a new encoder, drawn from the seed, and the teacher's decoder; it learns
`--student-steps` steps of the embedding first, so that what is compared is not how fast a random encoder finds its way.
Every method then gets the same student, photographs and number of steps:

- decoupled: the teacher's image embedding, its decoder frozen (MobileSAM, arXiv:2306.14289),
- full-stage: embedding, tokens, masks and predicted IoU, further clicks anywhere on the object (TinySAM,
  arXiv:2312.13789, without its two refinements),
- + hard prompts: further clicks from where the prediction is wrong,
- + hard mask weighting: and masks on which the teacher does better weigh more,
- INT8: the last one after `tinysam-export`.

The commands that run are printed; what is finished is not run again.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from tinysam.distillation.checkpoints import WEIGHTS
from tinysam.distillation.teacher import copy_decoder
from tinysam.models import build, get_variant, load
from tinysam.runtime.atomic import write_atomically
from tinysam.runtime.engines import usable_cores
from tinysam.runtime.engines.formats import DEFAULT
from tinysam.runtime.process import run_command

METHODS: dict[str, tuple[str, ...]] = {
    "decoupled": ("--mode", "decoupled"),
    "full-stage": ("--mode", "full-stage", "--no-hard-prompts"),
    "+ hard prompts": ("--mode", "full-stage", "--hard-prompts"),
    "+ hard mask weighting": ("--mode", "full-stage", "--hard-prompts", "--hard-mask-weighting"),
}
INT8 = "INT8"
OTHER_SAMPLES = 1000
"""What is added to the seed for the student's first steps, so that the methods see samples new to it."""
PROMPTS = ("box", "click_1", "click_3")


@dataclass(frozen=True)
class Plan:
    """What is compared, and on what."""

    data: Path
    val: Path
    out: Path
    variant: str
    size: int
    teacher: Path | None
    """The teacher's weights; None: the embedded ones."""
    student_steps: int
    """Steps of the student, decoupled, before the methods part."""
    limit: int
    """Photographs of `val`; 0: all."""
    threads: int
    """Of training and measurement."""
    distill: tuple[str, ...]
    """Further options of `tinysam-distill`."""

    def folder(self, method: str, seed: int) -> Path:
        """Where one run lies."""
        return self.out / f"{method.removeprefix('+ ').replace(' ', '-')}-{seed}"


def write_new(plan: Plan, seed: int) -> Path:
    """Weights to start from: a random encoder and the teacher's decoder."""
    path = plan.out / f"new-{seed}.safetensors"
    if not path.exists():
        variant = get_variant(plan.variant)
        teacher = load(variant, plan.teacher, plan.size)
        torch.manual_seed(seed)
        student = build(variant, plan.size)
        copy_decoder(student, teacher)
        write_atomically(path, save({name: value.contiguous() for name, value in student.state_dict().items()}))
    return path


def command(module: str, *options: object) -> list[str]:
    """A command of this project, run by this Python."""
    return [sys.executable, "-m", f"tinysam.{module}", *map(str, options)]


def training(plan: Plan, method: str, seed: int, start: Path, out: Path) -> list[str]:
    """Trains one method from one seed."""
    teacher = ("--teacher", plan.variant, *(("--teacher-checkpoint", plan.teacher) if plan.teacher else ()))
    where = ("--data", plan.data, "--start", start, "--out", out, "--resume")
    what = ("--variant", plan.variant, "--image-size", plan.size, "--seed", seed, "--threads", plan.threads)
    return command("distillation.cli", *where, *what, *teacher, *METHODS[method], *plan.distill)


def student(plan: Plan, seed: int) -> Path:
    """The weights that every method of this seed starts from."""
    new, path = write_new(plan, seed), plan.out / f"student-{seed}.safetensors"
    if plan.student_steps == 0:
        return new
    if not path.exists():
        folder = plan.out / f"student-{seed}"
        steps = ("--steps", str(plan.student_steps), "--decay-steps", "0")
        run([*training(plan, "decoupled", seed + OTHER_SAMPLES, new, folder), *steps])
        write_atomically(path, (folder / WEIGHTS).read_bytes())
    return path


def export(plan: Plan, method: str, seed: int) -> list[str]:
    """Exports one run's weights to INT8."""
    folder = plan.folder(method, seed)
    what = ("--variant", plan.variant, "--size", plan.size, "--checkpoint", folder / WEIGHTS, "--format", DEFAULT)
    return command("export.cli", *what, "--least-mask-iou", 0, "--out", folder)


def measurement(plan: Plan, out: Path, *model: object) -> list[str]:
    """Mean IoU of one model for a box, one click and three."""
    clicks = [name.removeprefix("click_") for name in PROMPTS if name.startswith("click_")]
    which = ("--data", plan.val, "--limit", plan.limit, "--max-masks", 6, "--clicks", *clicks)
    return command("evaluation.cli", *which, "--threads", plan.threads, "--out", out, *model)


def run(line: Sequence[str]) -> None:
    """Runs a command; RuntimeError if it fails."""
    print("$", shlex.join(["python", *line[1:]]), flush=True)
    if code := subprocess.run(line, check=False).returncode:
        raise RuntimeError(f"{line[2]} ended with exit code {code}; the same command continues where it stopped")


def run_measurement(plan: Plan, out: Path, *model: object) -> dict[str, float]:
    """Figures of one model; measured unless they are there."""
    summary = out / "summary.json"
    if not summary.exists():
        run(measurement(plan, out, *model))
    means: dict[str, float] = json.loads(summary.read_text(encoding="utf-8"))["mean_iou"]["all"]
    return {name: means[name] for name in PROMPTS}


def train_and_measure(plan: Plan, method: str, seed: int) -> dict[str, float]:
    """Figures of a method from one seed."""
    folder = plan.folder(method, seed)
    done = folder / "eval" / "summary.json"
    if not done.exists():
        run(training(plan, method, seed, student(plan, seed), folder))
    model = ("--backend", "torch", "--variant", plan.variant, "--image-size", plan.size)
    return run_measurement(plan, folder / "eval", *model, "--checkpoint", folder / WEIGHTS)


def quantize_and_measure(plan: Plan, method: str, seed: int) -> dict[str, float]:
    """Figures of a method from one seed after INT8."""
    folder = plan.folder(method, seed)
    artifacts = folder / f"{plan.variant}-{plan.size}"
    if not artifacts.exists():
        run(export(plan, method, seed))
    return run_measurement(plan, folder / "eval-int8", "--backend", DEFAULT, "--artifacts", artifacts)


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: mean over the seeds, and half of the range between the smallest and the largest."""
    lines = ["| method | " + " | ".join(PROMPTS) + " |", "| --- |" + " ---: |" * len(PROMPTS)]
    for method, rows in found.items():
        values = np.array([[row[name] for name in PROMPTS] for row in rows])
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(values.mean(0), np.ptp(values, axis=0) / 2, strict=True)]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compare(plan: Plan, seeds: Sequence[int]) -> dict[str, list[dict[str, float]]]:
    """Figures of every method, a row per seed; all methods of a seed before the next seed."""
    last = list(METHODS)[-1]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (*METHODS, INT8)}
    for seed in seeds:
        for method in METHODS:
            found[method].append(train_and_measure(plan, method, seed))
        found[INT8].append(quantize_and_measure(plan, last, seed))
    return found


def main(argv: list[str] | None = None) -> int:
    """Entry point; options it does not know go to `tinysam-distill`."""
    options = argparse.ArgumentParser(prog="python -m tinysam.distillation.compare_methods", description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="COCO-format folder to train on")
    options.add_argument("--val", type=Path, required=True, help="COCO-format folder to measure on")
    options.add_argument("--out", type=Path, default=Path("runs/methods"))
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--variant", default="nano", help="of teacher and student")
    options.add_argument("--size", type=int, default=224, help="side of the input")
    options.add_argument("--teacher", type=Path, help="its weights (default: the embedded ones)")
    options.add_argument("--student-steps", type=int, default=200, help="decoupled steps before the methods part")
    options.add_argument("--limit", type=int, default=0, help="photographs to measure on, evenly spread (0: all)")
    options.add_argument("--threads", type=int, default=usable_cores())
    known, further = options.parse_known_args(argv)
    seeds = vars(known).pop("seeds")
    plan = Plan(**vars(known), distill=tuple(further))
    stopped = "stopped; the same command continues"
    return run_command("compare_methods", lambda: print(f"\n{table(compare(plan, seeds))}"), stopped)


if __name__ == "__main__":
    sys.exit(main())
