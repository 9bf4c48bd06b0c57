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
from tinysam.runtime.geometry import Frame
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PADDING, POSITIVE
from tinysam.runtime.locate import find_artifacts
from tinysam.runtime.manifest import read_manifest
from tinysam.runtime.mask_choice import choose_mask, is_ambiguous
from tinysam.runtime.preprocess import resize

CPU = "cortex-a76"
CLICKS = 3
"""Clicks of a photograph on each side of a grid."""
LEAST = 0.98
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


def clicks_of(frame: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(P, 2, 2) and (P, 2): clicks on a grid, each with SAM's padding point."""
    height, width = frame.input_size
    places = (np.arange(CLICKS) + 0.5) / CLICKS
    points = np.stack(np.meshgrid(places * width, places * height), -1).reshape(-1, 1, 2)
    coords = np.concatenate([points, np.zeros_like(points)], axis=1).astype(np.float32)
    return coords, np.tile(np.array([POSITIVE, PADDING], np.float32), (len(coords), 1))


def boxes_of(masks: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same of the boxes of low-res masks (P, h, w) that are not empty."""
    corners = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows) > 1 and len(columns) > 1:
            corners.append(4 * np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], np.float32))
    return np.array(corners, np.float32).reshape(-1, 2, 2), np.tile(
        np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], np.float32), (len(corners), 1)
    )


def chosen(found: Arrays, inputs: Arrays, i: int, graphs: Graphs) -> NDArray[np.bool_]:
    """(P, h, w) the masks of photograph `i` that a user gets."""
    masks, iou = found[f"masks_{i}"], found[f"iou_{i}"]
    logits = np.where(masks, 1, -1).astype(np.float32)
    rule, tokens = graphs.manifest.mask_choice, graphs.manifest.mask_tokens
    index = choose_mask(rule, tokens, iou, is_ambiguous(inputs[f"labels_{i}"]), logits)
    picked: NDArray[np.bool_] = masks[np.arange(len(masks)), index]
    return picked


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
    images = encoder_inputs(graphs["fp32"], pictures)
    prompts: dict[str, Arrays] = {"click": {}, "box": {}}
    side = graphs["fp32"].manifest.image_size
    for i, picture in enumerate(pictures):
        coords, labels = clicks_of(Frame((picture.height, picture.width), side))
        prompts["click"] |= {f"coords_{i}": coords, f"labels_{i}": labels}
    expected = {"click": run_graphs(graphs["fp32"], images | prompts["click"], None)}
    for i in range(len(pictures)):
        coords, labels = boxes_of(chosen(expected["click"], prompts["click"], i, graphs["fp32"]))
        prompts["box"] |= {f"coords_{i}": coords, f"labels_{i}": labels}
    expected["box"] = run_graphs(graphs["fp32"], images | prompts["box"], None)

    def agreement(kind: str, found: Arrays, one: str) -> NDArray[np.float64]:
        asked, ious = prompts[kind], []
        for i in range(len(pictures)):
            masks = chosen(expected[kind], asked, i, graphs["fp32"])
            ious.append(mask_iou(chosen(found, asked, i, graphs[one]), masks))
        return np.concatenate(ious)

    result: dict[str, Arrays] = {}
    for one in precisions:
        own = encoder_inputs(graphs[one], pictures)
        for place, where in (("on this machine", None), (f"on {CPU}", board)):
            found = {kind: run_graphs(graphs[one], own | asked, where) for kind, asked in prompts.items()}
            result[f"{form.title} {one} {place}"] = {kind: agreement(kind, found[kind], one) for kind in prompts}
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
