"""Segment-everything against the textbook generator in eager PyTorch, in one run on one machine.

    python -m tinysam.evaluation.bench_everything artifacts/nano-448 --checkpoint embedded
    python -m tinysam.evaluation.bench_everything artifacts/tinysam-1024 --checkpoint tinysam.pth

The textbook is SAM's automatic mask generator over this project's plain torch model: 64 points at once, every mask
brought to the photograph's size, filters, boxes and run lengths there. Both sides get the same picture, grid and
thresholds. With `--checkpoint random` (parameters of seed 0, as the artifacts must have been made from) predicted IoU
means nothing, so the threshold is set where a share of the masks passes (`--share`), and stability is not asked for.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tinysam.models import Sam, build, get_variant, load, normalize
from tinysam.runtime import Segmenter
from tinysam.runtime.engines.formats import DEFAULT
from tinysam.runtime.everything.generator import segment_everything
from tinysam.runtime.everything.points import point_grid
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.geometry import Frame
from tinysam.runtime.masks.nms import nms
from tinysam.runtime.preprocess import resize
from tinysam.runtime.process import run_command

BATCH = 64


class Seconds(NamedTuple):
    """A duration. On a busy machine the CPU time is the one to compare."""

    wall: float
    cpu: float

    def line(self, name: str, base: "Seconds", remark: str) -> str:
        """One row of the table, with how many times as fast as `base`."""
        return (
            f"{name:<28}{self.wall:8.2f} s wall {base.wall / self.wall:6.1f} x {self.cpu:8.2f} s cpu "
            f"{base.cpu / self.cpu:6.1f} x  {remark}"
        )


@torch.inference_mode()
def encode(model: Sam, picture: Image.Image, frame: Frame) -> Tensor:
    """The embedding of a photograph."""
    pixels = torch.from_numpy(resize(picture, frame).copy()).permute(2, 0, 1).float()
    height, width = frame.input_size
    padded = F.pad(normalize(pixels), (0, model.image_size - width, 0, model.image_size - height))
    return model.encode(padded[None])


@torch.inference_mode()
def textbook(
    model: Sam, embedding: Tensor, frame: Frame, settings: EverythingSettings, batches: int | None = None
) -> int:
    """SAM's generator after the encoder; returns the number of masks. Decodes only `batches` batches if given."""
    height, width = frame.original_size
    points = frame.to_model(point_grid(settings.points_per_side) * [width, height])
    kept: list[tuple[Tensor, Tensor, list[list[int]]]] = []
    for start in range(0, len(points), BATCH)[:batches]:
        coords = torch.from_numpy(points[start : start + BATCH])[:, None]
        coords = torch.cat([coords, torch.zeros_like(coords)], dim=1)
        labels = torch.tensor([[1, -1]]).expand(len(coords), -1)
        kept.append(_judge(model, embedding, coords, labels, frame, settings))
    boxes, scores = torch.cat([part[0] for part in kept]), torch.cat([part[1] for part in kept])
    return len(nms(boxes.double().numpy(), scores.double().numpy(), settings.box_nms_thresh))


def _judge(
    model: Sam, embedding: Tensor, coords: Tensor, labels: Tensor, frame: Frame, settings: EverythingSettings
) -> tuple[Tensor, Tensor, list[list[int]]]:
    """Boxes, scores and run lengths of the good masks of one batch, all measured at full size."""
    decoded = model.decode(embedding, coords, labels)
    low_res, iou = decoded.low_res_masks[:, 1:], decoded.iou[:, 1:].flatten()
    square = (frame.image_size, frame.image_size)
    height, width = frame.input_size
    large = F.interpolate(low_res, square, mode="bilinear", align_corners=False)[..., :height, :width]
    logits = F.interpolate(large, frame.original_size, mode="bilinear", align_corners=False).flatten(0, 1)
    passed = iou > settings.pred_iou_thresh
    logits, iou = logits[passed], iou[passed]
    inner = (logits > settings.stability_score_offset).sum((1, 2))
    outer = (logits > -settings.stability_score_offset).sum((1, 2))
    stable = inner / outer.clamp(min=1) >= settings.stability_score_thresh
    masks, iou = logits[stable] > 0, iou[stable]
    counts = [torch.diff(m.T.flatten().int()).nonzero().flatten().tolist() for m in masks]
    return _boxes(masks), iou, counts


def _boxes(masks: Tensor) -> Tensor:
    columns, rows = masks.any(1).int(), masks.any(2).int()
    width, height = columns.shape[1], rows.shape[1]
    left, right = columns.argmax(1), width - columns.flip(1).argmax(1)
    top, bottom = rows.argmax(1), height - rows.flip(1).argmax(1)
    return torch.stack([left, top, right, bottom], dim=1)


def threshold_for(share: float, segmenter: Segmenter, picture: Image.Image) -> float:
    """The predicted IoU that this share of the masks of a coarse grid exceed."""
    segmenter.set_image(picture)
    points = point_grid(8) * [picture.width, picture.height]
    _, iou = segmenter.decode(segmenter.prompts(points[:, None], np.ones((64, 1))))
    return float(np.quantile(iou, 1 - share))


def measure_work(work: Callable[[], Any]) -> tuple[Seconds, Any]:
    """How long it took, and what it returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu), value


def main() -> None:
    """Prints times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("--checkpoint", default="random", help="random, embedded, or a file")
    parser.add_argument("--image", type=Path, help="default: skimage.data.cat()")
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--share", type=float, default=0.1, help="random parameters: of the masks, how many pass")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, help="textbook: time only so many batches of 64 points and scale up")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    segmenters = {
        (file.engine, file.precision): Segmenter(options.artifacts, file.engine, file.precision, options.threads)
        for file in Segmenter(options.artifacts, precision="fp32").manifest.files
        if file.part == "decoder"
    }
    reference = segmenters[DEFAULT, "fp32"]
    model = _model(options.checkpoint, reference.manifest.variant, reference.manifest.image_size)
    picture = Image.open(options.image).convert("RGB") if options.image else _cat()
    changes: dict[str, Any] = {"points_per_side": options.points_per_side}
    if options.checkpoint == "random":
        threshold = threshold_for(options.share, reference, picture)
        changes |= {"pred_iou_thresh": threshold, "stability_score_thresh": 0.0}
    settings = EverythingSettings.of_model(reference.manifest.everything, hierarchical=False, **changes)
    print(f"{picture.width} x {picture.height} pixels, {options.points_per_side} points per side, {settings}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {options.threads} threads")
    base = _textbook_seconds(model, picture, settings, options.batches)
    for (engine, precision), segmenter in segmenters.items():
        # Logits of random parameters stay below `coarse_logit_thresh`, so that no point would be left out.
        for hierarchical in (False,) if options.checkpoint == "random" else (False, True):
            own = EverythingSettings.of_model(reference.manifest.everything, hierarchical=hierarchical, **changes)
            segmenter.set_image(picture)
            segmenter.predict(box=[0, 0, picture.width, picture.height])
            seconds, found = measure_work(partial(segment_everything, segmenter, picture, own))
            name = f"{engine} {precision} {'hierarchical' if hierarchical else 'full grid'}"
            drawn = f"{found.points} points, {found.drawn / found.points:.0%} drawn, {len(found.masks)} masks"
            stages = ", ".join(f"{stage} {ms / 1e3:.2f}" for stage, ms in found.timing_ms.items())
            print(seconds.line(name, base, f"{drawn}; {stages} s"), flush=True)


def _textbook_seconds(model: Sam, picture: Image.Image, settings: EverythingSettings, batches: int | None) -> Seconds:
    total = -(-(settings.points_per_side**2) // BATCH)
    done = min(batches or total, total)
    frame = Frame((picture.height, picture.width), model.image_size)
    encoding, embedding = measure_work(lambda: encode(model, picture, frame))
    decoding, count = measure_work(lambda: textbook(model, embedding, frame, settings, done))
    seconds = Seconds(*(first + rest * total / done for first, rest in zip(encoding, decoding, strict=True)))
    remark = f"{count} masks, {settings.points_per_side**2} points"
    if done < total:
        remark = f"decoder scaled up from {done} of {total} batches"
    print(seconds.line("eager torch, full grid", seconds, remark), flush=True)
    return seconds


def _model(checkpoint: str, name: str, size: int) -> Sam:
    variant = get_variant(name)
    if checkpoint == "random":
        torch.manual_seed(0)
        return build(variant, size)
    return load(variant, None if checkpoint == "embedded" else Path(checkpoint), size)


def _cat() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.cat())


if __name__ == "__main__":
    sys.exit(run_command("bench_everything", main))
