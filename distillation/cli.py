"""`tinysam-distill`: trains a variant."""

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from tinysam.evaluation.coco import DataError, Photo, read_coco
from tinysam.distillation.checkpoints import NAME, ResumeError, load_state
from tinysam.distillation.recipe import Recipe
from tinysam.distillation.samples import Batch, Numbers, Samples, loader
from tinysam.distillation.trainer import Device, Diverged, Trainer
from tinysam.models import CheckpointError, build, get_variant, load


def parser() -> argparse.ArgumentParser:
    """Every field of the recipe is an option."""
    p = argparse.ArgumentParser(prog="tinysam-distill", description=__doc__)
    p.add_argument("--data", type=Path, nargs="+", required=True, help="COCO-format folders with masks")
    p.add_argument("--backgrounds", type=Path, nargs="*", default=[], help="folders of photographs to paste on")
    p.add_argument("--out", type=Path, required=True, help="folder of checkpoint, weights and logs")
    p.add_argument("--start", type=Path, help="weights to start from (default: the embedded ones)")
    p.add_argument("--scratch", action="store_true", help="start from random weights")
    p.add_argument("--resume", action="store_true", help="continue the run in --out, if there is one")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    p.add_argument("--threads", type=int, help="of a CPU (default: all)")
    p.add_argument("--workers", type=int, default=1, help="processes that make samples")
    p.add_argument("--minutes", type=float, default=3.0, help="between checkpoints")
    for field in fields(Recipe):
        name = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            p.add_argument(name, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            p.add_argument(name, type=type(field.default), default=field.default)
    return p


def photos_in(folder: Path) -> list[Photo]:
    """Photographs of a folder, without masks."""
    from PIL import Image

    found = []
    for path in sorted([*folder.glob("*.jpg"), *folder.glob("*.png")]):
        with Image.open(path) as image:
            found.append(Photo(len(found), path, image.width, image.height, ()))
    if not found:
        raise DataError(f"{folder}: no .jpg or .png")
    return found


def train(args: argparse.Namespace) -> None:
    """Runs or continues a training."""
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in fields(Recipe)})
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(recipe.seed)
    photos = [photo for folder in args.data for photo in read_coco(folder)]
    backgrounds = [photo for folder in args.backgrounds for photo in photos_in(folder)]
    variant = get_variant(recipe.variant)
    model = build(variant, recipe.image_size) if args.scratch else load(variant, args.start, recipe.image_size)
    model.to(args.device, memory_format=torch.channels_last)
    trainer = Trainer(model, recipe, Device(args.device, args.precision == "bf16"), args.out, args.minutes)
    if args.resume and (args.out / NAME).exists():
        trainer.resume(load_state(args.out, recipe, 1))
    batches: DataLoader[Batch] = loader(Samples(photos, recipe, backgrounds), Numbers(recipe, trainer.step), args.workers)
    for row in trainer.run(iter(batches)):
        print(
            f"step {row['step']:6.0f}  {row['seconds']:7.0f} s  loss {row['loss']:.3f}  IoU box {row['iou_box']:.3f} "
            f"click {row['iou_click']:.3f} further {row['iou_further']:.3f}  norm {row['norm']:.2f}  "
            f"loading {row['loading_share']:.0%}",
            flush=True,
        )


def main() -> int:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        train(parser().parse_args())
    except (CheckpointError, DataError, ResumeError, Diverged, OSError, ValueError) as error:
        print(f"tinysam-distill: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
