"""`python -m tinysam.evaluation.agreement`: INT8 masks against fp32 masks and against the truth, side by side.

For every annotated mask, its box and one click in its middle are answered by the fp32 ONNX files and by each
candidate, INT8 or of another precision. Reported: mean IoU with the truth and its difference to fp32 in points, mean
IoU of the candidate's mask with the fp32 mask, how often both choose the same of their masks by predicted IoU, and the
relative error of the image embedding, norm(candidate - fp32) / norm(fp32), as a mean over the photographs.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from tinysam.calibration.arrays import relative_error
from tinysam.calibration.judge import mask_iou
from tinysam.datasets.coco import Mask, read_coco
from tinysam.datasets.prompts import centre
from tinysam.datasets.reading import prefetch, read_photo
from tinysam.evaluation.backends import ModelChoice
from tinysam.evaluation.prompted import Answers, decode, iou
from tinysam.evaluation.tasks import spread
from tinysam.runtime.engines import usable_cores
from tinysam.runtime.engines.formats import FORMATS, ONNX
from tinysam.runtime.graphs import CHOICES, file_precision
from tinysam.runtime.locate import find_artifacts
from tinysam.runtime.manifest import PARTS, read_manifest
from tinysam.runtime.process import run_command
from tinysam.runtime.prompts import Prompts
from tinysam.runtime.segmenter import Segmenter

KINDS = ("box", "click")


@dataclass(frozen=True)
class Row:
    """One prompt, answered by one candidate."""

    kind: str
    truth: float
    """IoU with the truth."""
    agreement: float
    """IoU with the fp32 mask."""
    same: bool
    """Whether the same mask was chosen."""


def prompts_of(segmenter: Segmenter, masks: Sequence[Mask], truth: NDArray[np.bool_]) -> dict[str, Prompts]:
    """The boxes of the masks, and a click in the middle of each."""
    clicks = np.array([[centre(mask)] for mask in truth])
    return {
        "box": segmenter.prompts(boxes=np.array([mask.box for mask in masks])),
        "click": segmenter.prompts(clicks, np.ones(clicks.shape[:2])),
    }


def rows(kind: str, answer: Answers, reference: Answers, truth: NDArray[np.bool_]) -> Iterator[Row]:
    """Compares the masks that a user would get."""
    right, alike = iou(answer.shown, truth), mask_iou(answer.shown, reference.shown)
    for i in range(len(truth)):
        yield Row(kind, float(right[i]), float(alike[i]), bool(answer.chosen[i] == reference.chosen[i]))


@dataclass
class Found:
    """What one candidate gave, photograph after photograph."""

    rows: list[Row] = field(default_factory=list)
    embedding_errors: list[float] = field(default_factory=list)
    """Of each photograph, relative to the reference's embedding."""


def compare(
    segmenters: dict[str, Segmenter], picture: Image.Image, masks: Sequence[Mask], found: dict[str, Found]
) -> None:
    """Adds every candidate's answers for one photograph to `found`; the first segmenter is the reference."""
    truth = np.stack([mask.decode().astype(bool) for mask in masks])
    expected: dict[str, Answers] = {}
    embedding: NDArray[np.float32] | None = None
    for name, segmenter in segmenters.items():
        segmenter.set_image(picture)
        own = segmenter.get_image_embedding()
        embedding = own if embedding is None else embedding
        found[name].embedding_errors.append(relative_error(own, embedding))
        for kind, prompts in prompts_of(segmenter, masks, truth).items():
            answer = decode(segmenter, prompts)
            found[name].rows += rows(kind, answer, expected.setdefault(kind, answer), truth)


def summary(found: dict[str, Found]) -> dict[str, dict[str, float]]:
    """Candidate -> figures by kind of prompt."""
    reference = next(iter(found))
    means = {
        name: {kind: float(np.mean([row.truth for row in one.rows if row.kind == kind])) for kind in KINDS}
        for name, one in found.items()
    }
    result: dict[str, dict[str, float]] = {}
    for name, one in found.items():
        result[name] = {"embedding_error": float(np.mean(one.embedding_errors))}
        for kind in KINDS:
            some = [row for row in one.rows if row.kind == kind]
            result[name] |= {
                f"{kind}_iou": means[name][kind],
                f"{kind}_points": 100 * (means[name][kind] - means[reference][kind]),
                f"{kind}_agreement": float(np.mean([row.agreement for row in some])),
                f"{kind}_same": float(np.mean([row.same for row in some])),
            }
    return result


def table(result: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    head = "| | " + " | ".join(f"{kind}: IoU | difference, points | IoU with fp32 | same mask" for kind in KINDS)
    lines = [head + " | embedding error |", "| --- |" + " ---: |" * (4 * len(KINDS) + 1)]
    for name, f in result.items():
        cells = [
            f"{f[f'{k}_iou']:.3f} | {f[f'{k}_points']:+.2f} | {f[f'{k}_agreement']:.3f} | {100 * f[f'{k}_same']:.1f} %"
            for k in KINDS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {f['embedding_error']:.4f} |")
    return "\n".join(lines)


def comparison_parser(command: str, description: str | None, limit: int) -> argparse.ArgumentParser:
    """Options of a command that compares files with the fp32 files of an artifact folder; `limit`: its default."""
    options = argparse.ArgumentParser(prog=f"python -m tinysam.evaluation.{command}", description=description)
    options.add_argument("--data", type=Path, required=True, help="COCO-format folder with masks")
    options.add_argument("--reference", type=Path, required=True, help="artifact folder with fp32 ONNX files")
    options.add_argument("artifacts", type=Path, nargs="+", help="artifact folders with the files to compare")
    every = "engines of the candidates (default: all that there are files of this precision for)"
    options.add_argument("--backend", nargs="+", choices=tuple(FORMATS), help=every)
    options.add_argument(
        "--precision", choices=CHOICES, default="int8", help="of the candidates (default: %(default)s)"
    )
    shown = "photographs, evenly spread (0: all; default: %(default)s)"
    options.add_argument("--limit", type=int, default=limit, help=shown)
    options.add_argument("--threads", type=int)
    options.add_argument("--json", type=Path, help="also write the figures here")
    return options


def open_models(arguments: argparse.Namespace) -> tuple[Segmenter, dict[str, Segmenter]]:
    """The reference, and every folder and backend to compare by its name in the table."""
    threads = arguments.threads or usable_cores()
    needed = {file_precision(arguments.precision, part) for part in PARTS}
    candidates = {
        f"{folder} {backend}": ModelChoice(backend, folder, arguments.precision, threads=threads).open()
        for folder in arguments.artifacts
        for backend in arguments.backend or read_manifest(find_artifacts(folder)).engines_with(needed) or FORMATS
    }
    return ModelChoice(ONNX.name, arguments.reference, "fp32", threads=threads).open(), candidates


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    options = comparison_parser("agreement", __doc__, limit=0)
    options.add_argument("--max-masks", type=int, default=6, help="of a photograph (0: all)")
    return options


def run(arguments: argparse.Namespace) -> None:
    """Compares all candidates and prints the table."""
    reference, candidates = open_models(arguments)
    segmenters = {"fp32": reference} | candidates
    photos = spread(read_coco(arguments.data), arguments.limit)
    found = {name: Found() for name in segmenters}
    for photo, picture in tqdm(prefetch(read_photo, photos), total=len(photos), unit="photo"):
        if picture is not None:
            compare(segmenters, picture, spread(photo.masks, arguments.max_masks), found)
    result = summary(found)
    print(f"{len(photos)} photographs, {len(found['fp32'].rows) // len(KINDS)} masks\n\n{table(result)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    arguments = parser().parse_args(argv)
    return run_command("agreement", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
