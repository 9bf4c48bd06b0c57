"""`python -m tinysam.evaluation.calibrate_iou`: fits predicted IoU to the true IoU, at no cost at run time.

1. Every annotated mask of the photographs is asked for by its box and by one click in its middle.
2. For each mask token a line is fitted by least squares, with some weight on a slope of 1, from predicted to true IoU,

       true = a_k predicted + c_k,

   for masks 1 to 3 on clicks, for mask 0 on boxes, and by the rule `steady` on clicks as well: what each of them is
   used for.
3. The lines become part of the last layer of the IoU head, w_k' = a_k w_k and b_k' = a_k b_k + c_k, so that every
   engine has them. The choice between masks 1 to 3 changes with them.
4. On other photographs it prints the mean IoU of the masks that a user gets, before and after, and the mean true IoU in
   each tenth of predicted IoU.

Photographs on which the weights were trained make the model look better than it is: fit on others.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from tqdm import tqdm

from tinysam.datasets.coco import read_coco
from tinysam.datasets.prompts import centre
from tinysam.datasets.reading import prefetch, read_photo
from tinysam.evaluation.backends import ModelChoice
from tinysam.evaluation.prompted import decode, iou
from tinysam.evaluation.tasks import spread
from tinysam.models import get_variant
from tinysam.models.checkpoint import read_state, weights_path
from tinysam.runtime.atomic import open_atomically
from tinysam.runtime.engines import usable_cores
from tinysam.runtime.process import run_command
from tinysam.runtime.segmenter import Segmenter

Floats = NDArray[np.float64]
HEAD = "mask_decoder.iou_prediction_head.layers.2"
"""The layer that gives the predicted IoU of the four masks."""
KINDS = ("box", "click")
CLICKS_OF_MASK_0 = 2
"""Weight of a click beside a box where mask 0 answers both; clicks leave more open, and are overrated without it."""
PRIOR = 1.0
"""Weight of a slope of 1: that of 25 masks whose predicted IoU is right and has a deviation of 0.2."""


class Answers:
    """Predicted and true IoU (N, 4) of the masks for each kind of prompt, and which of them a user gets."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[Floats, Floats, int]]] = {kind: [] for kind in KINDS}

    def add(self, segmenter: Segmenter, truth: NDArray[np.bool_], boxes: Floats) -> None:
        """Asks for the masks of the image that is set."""
        clicks = np.array([[centre(mask)] for mask in truth])
        prompts = {
            "box": segmenter.prompts(boxes=boxes),
            "click": segmenter.prompts(clicks, np.ones(clicks.shape[:2])),
        }
        for kind, prompt in prompts.items():
            answer = decode(segmenter, prompt)
            true = iou(answer.masks, truth[:, None])
            self.rows[kind] += list(zip(answer.predicted.astype(np.float64), true, answer.chosen.tolist(), strict=True))

    def of(self, kind: str) -> tuple[Floats, Floats]:
        """Predicted and true IoU, each (N, 4)."""
        predicted, true, _ = zip(*self.rows[kind], strict=True)
        return np.stack(predicted), np.stack(true)

    def shown(self, kind: str) -> tuple[Floats, Floats]:
        """Predicted and true IoU (N,) of the masks that a user gets."""
        predicted, true = self.of(kind)
        chosen = np.array([row[2] for row in self.rows[kind]])
        rows = np.arange(len(chosen))
        return predicted[rows, chosen], true[rows, chosen]


def ask(choice: ModelChoice, folders: Sequence[Path], limit: int, max_masks: int) -> Answers:
    """Answers of a model on the photographs of some folders, at most `limit` of each."""
    photos = [photo for folder in folders for photo in spread(read_coco(folder), limit)]
    segmenter, answers = choice.open(), Answers()
    for photo, picture in tqdm(prefetch(read_photo, photos), total=len(photos), unit="image", disable=None):
        if picture is not None:
            masks = spread(photo.masks, max_masks)
            segmenter.set_image(picture)
            truth = np.stack([mask.decode().astype(bool) for mask in masks])
            answers.add(segmenter, truth, np.array([mask.box for mask in masks]))
    return answers


def uses(token: int, rule: str) -> list[str]:
    """Kinds of prompt that a mask token answers by a rule, each as often as it weighs."""
    if token != 0:
        return ["click"]
    return ["box"] + ["click"] * (CLICKS_OF_MASK_0 if rule == "steady" else 0)


def fit_lines(answers: Answers, rule: str) -> Floats:
    """(4, 2) slope and offset of each mask token."""
    lines = []
    for token in range(4):
        asked = [answers.of(kind) for kind in uses(token, rule)]
        predicted, true = (np.concatenate([values[i][:, token] for values in asked]) for i in range(2))
        p, t = predicted - predicted.mean(), true - true.mean()
        slope = (p @ t + PRIOR) / (p @ p + PRIOR)
        lines.append((slope, true.mean() - slope * predicted.mean()))
    return np.array(lines)


def fold(state: dict[str, torch.Tensor], lines: Floats) -> dict[str, torch.Tensor]:
    """The weights with the lines in the last layer of the IoU head."""
    slope, offset = torch.from_numpy(lines.astype(np.float32)).unbind(1)
    weight, bias = state[f"{HEAD}.weight"], state[f"{HEAD}.bias"]
    return {
        **state,
        f"{HEAD}.weight": (slope[:, None] * weight.float()).to(weight.dtype),
        f"{HEAD}.bias": (slope * bias.float() + offset).to(bias.dtype),
    }


def tenths(predicted: Floats, true: Floats) -> list[tuple[float, float, int]]:
    """Mean predicted and true IoU and their number in each tenth of predicted IoU that occurs."""
    tenth = np.clip(np.floor(10 * predicted), 0, 9)
    return [
        (float(predicted[tenth == k].mean()), float(true[tenth == k].mean()), int((tenth == k).sum()))
        for k in np.unique(tenth)
    ]


def report(answers: Answers) -> str:
    """For people: a line for each kind of prompt, and one for each tenth."""
    lines = []
    for kind in KINDS:
        predicted, true = answers.shown(kind)
        lines.append(f"{kind}: IoU {true.mean():.4f}, predicted {predicted.mean():.4f}, {len(true)} masks")
        lines += [f"  predicted {p:.3f}  true {t:.3f}  {n:5d}" for p, t, n in tenths(predicted, true)]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> None:
    """Fits, writes, checks."""
    path = weights_path(get_variant(args.variant), args.checkpoint)
    before = ModelChoice("torch", variant=args.variant, checkpoint=path, threads=args.threads)
    rule = get_variant(args.variant).mask_choice
    lines = fit_lines(ask(before, args.data, args.limit, args.max_masks), rule)
    for token, (slope, offset) in enumerate(lines):
        print(f"mask {token}: {slope:.3f} predicted {offset:+.3f}")
    state = fold(read_state(path), lines)
    with open_atomically(args.out) as file:
        file.write(save({name: value.contiguous() for name, value in state.items()}))
    after = ModelChoice("torch", variant=args.variant, checkpoint=args.out, threads=args.threads)
    for name, choice in (("before", before), ("after", after)):
        print(f"\n{name}\n{report(ask(choice, args.check, args.limit, args.max_masks))}")


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    options = argparse.ArgumentParser(prog="python -m tinysam.evaluation.calibrate_iou", description=__doc__)
    options.add_argument("--data", type=Path, nargs="+", required=True, help="COCO-format folders to fit on")
    options.add_argument("--check", type=Path, nargs="+", required=True, help="COCO-format folders to report on")
    options.add_argument("--variant", default="nano")
    options.add_argument("--checkpoint", type=Path, help="weights (default: the embedded ones)")
    options.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    options.add_argument("--limit", type=int, default=0, help="photographs of each folder, evenly spread (0: all)")
    options.add_argument("--max-masks", type=int, default=6, help="of a photograph (0: all)")
    options.add_argument("--threads", type=int, default=usable_cores())
    args = options.parse_args(argv)
    return run_command("calibrate_iou", lambda: run(args), "stopped")


if __name__ == "__main__":
    sys.exit(main())
