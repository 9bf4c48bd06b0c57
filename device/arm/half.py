"""The command `make arm-half`: masks of fp16 and INT8 files on an emulated Cortex-A76, whose arithmetic really is fp16.

1. The fp32 files of an artifact folder segment photographs on the host: clicks on a grid, and the boxes of their masks.
2. The files of each format and precision get the same encoder inputs and prompts on the emulated board.
3. What counts is the IoU of the masks that a user would get with those of step 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinysam.calibration.judge import mask_iou
from tinysam.device.arm import half_guest
from tinysam.device.arm.debian import DebianUnavailable
from tinysam.device.arm.emulator import Emulator, build_emulator, link_runtime
from tinysam.device.arm.root import BOARDS, BOOKWORM, cache_folder
from tinysam.device.arm.wheels import WheelsUnavailable
from tinysam.runtime.engines.formats import FORMATS, FileFormat
from tinysam.runtime.errors import TinySamError
from tinysam.runtime.geometry import LOW_RES_STRIDE, Frame
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.labels import POSITIVE
from tinysam.runtime.locate import find_artifacts
from tinysam.runtime.manifest import read_manifest
from tinysam.runtime.mask_choice import choose_mask
from tinysam.runtime.preprocess import resize
from tinysam.runtime.prompts import Prompts, assemble

CPU = "cortex-a76"
CLICKS = 3
"""Clicks of a photograph on each side of a grid."""
LEAST = 0.99
"""Mean IoU with the fp32 masks below which the command fails."""
Arrays = dict[str, NDArray[Any]]


def photographs(folder: Path | None, count: int) -> list[Image.Image]:
    """Pictures of a folder, or those that come with scikit-image."""
    if folder is None:
        from tinysam.calibration.photographs import bundled_photographs

        paths = list(bundled_photographs())
    else:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return [Image.open(path).convert("RGB") for path in paths[:count]]


def run_graphs(graphs: Graphs, inputs: Arrays, board: Emulator | None) -> Arrays:
    """Masks and predicted IoU for prompts, on the emulated board or, without one, on this machine.

    Raises:
        RuntimeError: the emulated program failed.
    """
    with tempfile.TemporaryDirectory() as name:
        source, destination = Path(name) / "in.npz", Path(name) / "out.npz"
        np.savez(source, **inputs)
        arguments = [str(graphs.folder.resolve()), graphs.backend, graphs.precision, str(source), str(destination)]
        if board is None:
            half_guest.main(*arguments)
        else:
            packages = Path(name) / "packages"
            link_runtime(packages)
            done = board.python(
                [half_guest.__file__, *arguments], environment={"PYTHONPATH": f"{board.site}:{packages}"}
            )
            if done.returncode != 0:
                message = (done.stderr.splitlines() or ["no message"])[-1]
                raise RuntimeError(f"{graphs.backend} {graphs.precision} on {CPU}: {message}")
        with np.load(destination) as found:
            return dict(found)


def clicks_of(frame: Frame, side: int) -> Prompts:
    """Clicks on a grid; `side`: of low-res masks."""
    height, width = frame.input_size
    places = (np.arange(CLICKS) + 0.5) / CLICKS
    points = np.stack(np.meshgrid(places * width, places * height), -1).reshape(-1, 1, 2)
    return assemble(frame, side, points, np.full(points.shape[:2], POSITIVE), in_model_frame=True)


def boxes_of(frame: Frame, masks: NDArray[np.bool_], fill: bool) -> Prompts:
    """The boxes of low-res masks (P, side, side) that are not empty; `fill`: with the filled box as mask prompt."""
    corners = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows) > 1 and len(columns) > 1:
            corners.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    boxes = LOW_RES_STRIDE * np.array(corners, np.float32).reshape(-1, 4)
    return assemble(frame, masks.shape[-1], boxes=boxes, fill_boxes=fill, in_model_frame=True)


def chosen(found: Arrays, i: int, prompts: Prompts, graphs: Graphs) -> NDArray[np.bool_]:
    """(P, side, side) the masks of photograph `i` that a user gets."""
    logits, iou = found[f"logits_{i}"], found[f"iou_{i}"]
    index = choose_mask(graphs.manifest.mask_choice, graphs.manifest.mask_tokens, iou, prompts.ambiguous, logits)
    picked: NDArray[np.bool_] = logits[np.arange(len(logits)), index] > 0
    return picked


def as_arrays(prompts: list[Prompts]) -> Arrays:
    """The prompts of every photograph, as the program on the board reads them."""
    return {
        f"{name}_{i}": value for i, one in enumerate(prompts) for name, value in vars(one).items() if value is not None
    }


def encoder_inputs(graphs: Graphs, pictures: list[Image.Image]) -> Arrays:
    """What an encoder takes of the photographs."""
    side = graphs.manifest.image_size
    made = (graphs.encoder_input(resize(p, Frame((p.height, p.width), side))) for p in pictures)
    return {f"image_{i}": image for i, image in enumerate(made)}


def compare(
    folder: Path, form: FileFormat, pictures: list[Image.Image], precisions: list[str], board: Emulator
) -> dict[str, Arrays]:
    """Precision and place -> kind of prompt -> IoU of every mask with that of the fp32 files on this machine."""
    graphs = {one: Graphs(folder, form.name, one, 1) for one in ("fp32", *precisions)}
    reference = graphs["fp32"]
    side, images = reference.manifest.image_size, encoder_inputs(reference, pictures)
    frames = [Frame((picture.height, picture.width), side) for picture in pictures]

    def masks_of(found: Arrays, kind: str, one: str) -> list[NDArray[np.bool_]]:
        return [chosen(found, i, asked, graphs[one]) for i, asked in enumerate(prompts[kind])]

    prompts = {"click": [clicks_of(frame, reference.low_res_side) for frame in frames]}
    expected = {"click": masks_of(run_graphs(reference, images | as_arrays(prompts["click"]), None), "click", "fp32")}
    fill = reference.manifest.box_masks
    prompts["box"] = [boxes_of(frame, masks, fill) for frame, masks in zip(frames, expected["click"], strict=True)]
    expected["box"] = masks_of(run_graphs(reference, images | as_arrays(prompts["box"]), None), "box", "fp32")

    result: dict[str, Arrays] = {}
    for one in precisions:
        own = encoder_inputs(graphs[one], pictures)
        for place, where in (("on this machine", None), (f"on {CPU}", board)):
            scores: Arrays = {}
            for kind, asked in prompts.items():
                masks = masks_of(run_graphs(graphs[one], own | as_arrays(asked), where), kind, one)
                scores[kind] = np.concatenate(list(map(mask_iou, masks, expected[kind])))
            result[f"{form.title} {one} {place}"] = scores
    return result


def precisions_of(folder: Path, form: FileFormat) -> list[str]:
    """fp16 and INT8, as far as the folder has files of a format in them."""
    have = {(file.engine, file.precision) for file in read_manifest(folder).files}
    return [one for one in ("fp16", "int8") if (form.name, one) in have]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 1 if the masks differ too much or nothing could be run."""
    parser = argparse.ArgumentParser(prog="python -m tinysam.device.arm.half", description=__doc__)
    parser.add_argument("--model", type=Path, metavar="DIR", help="artifact folder")
    parser.add_argument("--images", type=Path, help="folder of photographs (default: scikit-image's)")
    parser.add_argument("--count", type=int, default=5, help="photographs (default: 5)")
    parser.add_argument("--backend", nargs="+", choices=list(FORMATS), default=list(FORMATS), help="default: both")
    options = parser.parse_args(arguments)
    try:
        folder, pictures = find_artifacts(options.model), photographs(options.images, options.count)
        board = build_emulator(BOOKWORM, BOARDS[CPU], cache_folder())
        found: dict[str, Arrays] = {}
        for form in (FORMATS[name] for name in options.backend):
            found |= compare(folder, form, pictures, precisions_of(folder, form), board)
    except (TinySamError, DebianUnavailable, WheelsUnavailable, OSError, ValueError, RuntimeError) as error:
        print(f"arm-half: {error}", file=sys.stderr)
        return 1
    print(f"{len(pictures)} photographs, IoU with the masks of the fp32 files\n")
    for name, kinds in found.items():
        print(f"{name}: " + ", ".join(f"{kind} {v.mean():.4f} ({len(v)} prompts)" for kind, v in kinds.items()))
    half = [values.mean() for name, kinds in found.items() if " fp16 " in name for values in kinds.values()]
    return int(min(half, default=1.0) < LEAST)


if __name__ == "__main__":
    sys.exit(main())
