"""`tinysam-distill`: trains a variant."""

import argparse
import logging
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from tinysam.datasets.coco import DataError, Photo, read_coco, read_folder
from tinysam.distillation.checkpoints import NAME, ResumeError, load_state
from tinysam.distillation.device import Device, compile_model, join, leave, own_device
from tinysam.distillation.fake_quantization import fake_quantize
from tinysam.distillation.objectives import Decoupled, FullStage, Objective, Supervised
from tinysam.distillation.recipe import MODES, Recipe
from tinysam.distillation.resident import Resident, can_stay, fits
from tinysam.distillation.samples import Batch, Numbers, Samples, loader
from tinysam.distillation.shards import ShardBatches, find_shards, shard_loader
from tinysam.distillation.teacher import TeacherCache, TeacherError, copy_decoder, identity, load_teacher
from tinysam.distillation.trainer import Trainer
from tinysam.models import Sam, build, get_variant, load
from tinysam.runtime.process import run_command


def parser() -> argparse.ArgumentParser:
    """Every field of the recipe is an option."""
    p = argparse.ArgumentParser(prog="tinysam-distill", description=__doc__)
    data = p.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", type=Path, nargs="+", help="COCO-format folders with masks")
    data.add_argument("--shards", type=Path, help="folder with tar shards of SA-1B")
    p.add_argument("--skip-limit", type=int, default=100, help="damaged shards or photographs that are passed over")
    p.add_argument("--backgrounds", type=Path, nargs="*", default=[], help="folders of photographs to paste on")
    p.add_argument("--out", type=Path, required=True, help="folder of checkpoint, weights and logs")
    p.add_argument("--start", type=Path, help="weights to start from (default: the embedded ones)")
    p.add_argument("--scratch", action="store_true", help="start from random weights")
    p.add_argument("--resume", action="store_true", help="continue the run in --out, if there is one")
    p.add_argument("--teacher", help="variant of the teacher: sam_vit_b, sam_vit_l, sam_vit_h, tinysam, nano, ...")
    p.add_argument("--teacher-checkpoint", type=Path, help="its weights (default: the embedded ones, if it has any)")
    p.add_argument("--teacher-cache", type=Path, help="folder for its embeddings (decoupled, whole photographs)")
    p.add_argument(
        "--resident",
        action=argparse.BooleanOptionalAction,
        help="keep photographs and teacher embeddings on the device (decoupled, whole photographs; default: on a GPU, "
        "if they fit in half of its free memory)",
    )
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    p.add_argument("--compile", action="store_true", help="fuse kernels with torch.compile; needs a C++ compiler")
    p.add_argument("--threads", type=int, help="of a CPU (default: all)")
    p.add_argument("--workers", type=int, default=1, help="processes that make samples")
    p.add_argument("--minutes", type=float, default=3.0, help="between checkpoints")
    p.add_argument("--log-every", type=int, default=50, metavar="STEPS")
    for field in fields(Recipe):
        name = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            p.add_argument(name, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            choices = MODES if field.name == "mode" else None
            p.add_argument(name, type=type(field.default), default=field.default, choices=choices)
    return p


def objective_for(
    recipe: Recipe, args: argparse.Namespace, student: Sam, device: Device, photos: list[Photo], resident: bool
) -> tuple[Objective, str]:
    """What the recipe's mode minimizes, and the identity of its teacher; loads the teacher if there is one."""
    if recipe.mode == "supervised":
        return Supervised(recipe, device), ""
    if args.teacher is None:
        raise TeacherError(
            f"mode {recipe.mode} needs a teacher: give --teacher, and --teacher-checkpoint if it has none"
        )
    teacher = load_teacher(args.teacher, args.teacher_checkpoint, recipe.image_size, device.name)
    taught_by = identity(args.teacher, args.teacher_checkpoint)
    if recipe.mode == "full-stage":
        return FullStage(recipe, device, teacher), taught_by
    copy_decoder(student, teacher)
    if args.teacher_cache is None:
        return Decoupled(device, teacher), taught_by
    return Decoupled(device, teacher, TeacherCache(args.teacher_cache, teacher, taught_by, photos, resident)), taught_by


def validate_options(args: argparse.Namespace, recipe: Recipe) -> None:
    """ValueError for options that do not go together, before anything is loaded."""
    if args.teacher_cache and (recipe.mode != "decoupled" or recipe.augmented or args.shards):
        raise TeacherError("--teacher-cache holds whole photographs of --data: use --mode decoupled and --no-augmented")
    if args.shards and args.backgrounds:
        raise DataError("--backgrounds go with --data: shards bring enough photographs of their own")
    if args.resident and (args.shards or not can_stay(recipe)):
        raise DataError("--resident keeps whole photographs of --data: use --mode decoupled and --no-augmented")
    if (args.out / NAME).exists() and not args.resume:
        raise ResumeError(f"{args.out} holds a run already: continue it with --resume, or choose another --out")
    if args.log_every < 1:
        raise ValueError(f"--log-every {args.log_every}: expected at least 1")


def prepare_torch(threads: int | None, seed: int) -> None:
    """What holds for the whole process."""
    if threads:
        torch.set_num_threads(threads)
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # numpy looks at denormals once, and warns if they are gone by then
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)


def student_of(args: argparse.Namespace, recipe: Recipe, device: Device) -> Sam:
    """The model to train, on its device."""
    variant = get_variant(recipe.variant)
    model = build(variant, recipe.image_size) if args.scratch else load(variant, args.start, recipe.image_size)
    if recipe.fake_quantization:
        fake_quantize(model.image_encoder)
    model.to(device.name)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def batches_of(
    args: argparse.Namespace,
    recipe: Recipe,
    photos: list[Photo],
    numbers: Numbers,
    device: Device,
    resident: bool,
) -> Iterable[Batch]:
    """This process's batches."""
    if args.shards:
        where = (numbers.start, numbers.rank, numbers.world)
        return shard_loader(ShardBatches(find_shards(args.shards), recipe, *where, args.skip_limit), args.workers)
    samples = Samples(photos, recipe, limit=args.skip_limit)
    if resident:
        return Resident(samples, numbers, device, args.workers)
    return loader(samples, numbers, args.workers, pin=device.kind == "cuda")


def train(args: argparse.Namespace) -> None:
    """Runs or continues a training."""
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in fields(Recipe)})
    validate_options(args, recipe)
    prepare_torch(args.threads, recipe.seed)
    device = Device(own_device(args.device), args.precision == "bf16")
    rank, world = join(device.name)
    photos = [photo for folder in args.data or [] for photo in read_coco(folder)]
    photos += [photo for folder in args.backgrounds for photo in read_folder(folder)]
    model = student_of(args, recipe, device)
    resident = fits(recipe, len(photos), device) if args.resident is None else args.resident
    objective, taught_by = objective_for(recipe, args, model, device, photos, resident)
    if args.compile:
        compile_model(model)
    trainer = Trainer(model, objective, recipe, device, args.out, args.minutes, rank, world, taught_by)
    if (args.out / NAME).exists():
        trainer.resume(load_state(args.out, recipe, world, taught_by))
    batches = batches_of(args, recipe, photos, Numbers(recipe, trainer.step, rank, world), device, resident)
    with tqdm(total=recipe.steps, initial=trainer.step, unit="step", disable=None if rank == 0 else True) as bar:
        for row in trainer.run(iter(batches), args.log_every):
            bar.update(int(row["step"]) - bar.n)
            if rank == 0:
                bar.write(line(row))


def line(row: dict[str, float]) -> str:
    """A row of the log for people."""
    return (
        f"step {row['step']:6.0f}  {row['seconds']:7.0f} s  loss {row['loss']:.3f}  IoU box {row['iou_box']:.3f} "
        f"click {row['iou_click']:.3f} further {row['iou_further']:.3f}  norm {row['norm']:.2f}  "
        f"loading {row['loading_share']:.0%}"
    )


def main() -> int:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    stopped = "stopped; --resume continues from the last checkpoint"
    try:
        return run_command("tinysam-distill", lambda: train(parser().parse_args()), stopped)
    finally:
        leave()


if __name__ == "__main__":
    sys.exit(main())
