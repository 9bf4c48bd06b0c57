"""`python -m tinysam.distillation.phases`: the recipe of the embedded weights as one command.

Of `--steps`

1. the first half is at half the input size: four times as fast, and positions are normalized, so weights carry over;
2. to nine tenths at the full size, at the constant rate;
3. the rest at the full size while the rate falls to zero, on cleaner pictures, with a larger share of the loss for the
   mask that a user gets, and with the encoder's weights and activations rounded as INT8 files round them;
4. then the predicted IoU is calibrated (`tinysam.evaluation.calibrate_iou`) on photographs that were not trained on.

Every phase resumes the one before, so that a stopped command continues where it was. The weights are in
`<out>/calibrated.safetensors`. Options that it does not know go to `tinysam-distill`.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinysam.distillation.checkpoints import WEIGHTS
from tinysam.distillation.compare_methods import command, run
from tinysam.models import get_variant
from tinysam.runtime.process import run_command

SMALL_UNTIL, CONSTANT_UNTIL = 0.5, 0.9
"""Parts of the steps after which the first and the second phase end."""
CALIBRATED = "calibrated.safetensors"

COMMON = ("--prompts", "8", "--rounds", "0.3")
SMALL = ("--batch", "16", "--smallest-crop", "0.3", "--whole-share", "0.4", "--decay-steps", "0")
LARGE = ("--batch", "8", "--smallest-crop", "0.5", "--whole-share", "0.5", "--paste-share", "0.3", "--ema", "0.996")
LAST = ("--fault-share", "0.1", "--mosaic-share", "0.01", "--shown-share", "0.5", "--fake-quantization")


def phases(steps: int, size: int) -> Iterator[tuple[str, ...]]:
    """Options of each phase: up to which step, at which size, how."""
    small, constant = round(SMALL_UNTIL * steps), round(CONSTANT_UNTIL * steps)
    yield "--steps", str(small), "--image-size", str(size // 2), *SMALL
    yield "--steps", str(constant), "--image-size", str(size), *LARGE, "--decay-steps", "0"
    yield "--steps", str(steps), "--image-size", str(size), *LARGE, "--decay-steps", str(steps - constant), *LAST


def train(args: argparse.Namespace, further: Sequence[str]) -> None:
    """Runs the phases and the calibration."""
    variant = get_variant(args.variant)
    if args.steps < 10:
        raise ValueError(f"--steps {args.steps}: expected at least 10, so that each phase has one")
    masks = ("--box-masks", "0.8") if variant.box_masks else ()
    which = ("--variant", args.variant, "--data", *args.data, "--out", args.out, "--resume")
    for phase in phases(args.steps, variant.image_size):
        run(command("distillation.cli", *which, *COMMON, *masks, *phase, *further))
    weights = ("--variant", args.variant, "--checkpoint", args.out / WEIGHTS, "--out", args.out / CALIBRATED)
    run(command("evaluation.calibrate_iou", *weights, "--data", *args.val, "--check", *args.val))


def main(argv: list[str] | None = None) -> int:
    """Entry point; options it does not know go to `tinysam-distill`."""
    options = argparse.ArgumentParser(prog="python -m tinysam.distillation.phases", description=__doc__)
    options.add_argument("--data", type=Path, nargs="+", required=True, help="COCO-format folders to train on")
    options.add_argument("--val", type=Path, nargs="+", required=True, help="COCO-format folders to calibrate on")
    options.add_argument("--out", type=Path, required=True, help="folder of checkpoint, weights and logs")
    options.add_argument("--variant", default="nano")
    options.add_argument("--steps", type=int, default=20_000, help="of all phases together")
    args, further = options.parse_known_args(argv)
    return run_command("phases", lambda: train(args, further), "stopped; the same command continues")


if __name__ == "__main__":
    sys.exit(main())
