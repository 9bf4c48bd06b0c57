"""Gathers the INT8 report of an export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinysam.calibration.feeds import ImageFeed, best_masks
from tinysam.calibration.images import ImageSet
from tinysam.calibration.judge import mask_iou
from tinysam.calibration.layer_errors import layer_errors
from tinysam.calibration.operations import described_rules
from tinysam.calibration.report import MaskPair, Report, low_res_to_picture, write_report
from tinysam.export.engine import FeedModel, open_files
from tinysam.export.formats import OBSERVED
from tinysam.export.formats.onnx import int8_graph
from tinysam.export.int8.budget import Attempt, Sensitivity
from tinysam.export.int8.part import Part
from tinysam.export.reference import ReferenceCase
from tinysam.export.tensors import decoder_inputs
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.manifest import ModelFile


@dataclass(frozen=True)
class Decisions:
    """What was decided and on what grounds."""

    target: str
    ranges: str
    max_drop: float | None
    best: Attempt
    attempts: list[Attempt]
    sensitivities: list[Sensitivity]
    equalization: dict[str, tuple[dict[str, Any], ...]]
    """Part -> what equalization did to its pairs."""
    half: dict[str, object] | None
    """What the trial of fp16 found; None without one."""

    def to_dict(self) -> dict[str, Any]:
        """For `report.json`."""
        return {
            "target": self.target,
            "ranges": self.ranges,
            "max_drop": self.max_drop,
            "judgements": {engine: judgement.describe() for engine, judgement in self.best.judgements.items()},
            "float_blocks": [f"{s.part} {s.block.name}" for s in self.best.kept],
            "attempts": [
                {
                    "float_blocks": [f"{s.part} {s.block.name}" for s in made.kept],
                    "saved_million_instructions": round(made.saved(self.sensitivities), 2),
                    "judgements": {engine: judgement.describe() for engine, judgement in made.judgements.items()},
                }
                for made in self.attempts
            ],
            "sensitivity": [s.row() for s in self.sensitivities],
            "equalization": self.equalization,
            "fp16": self.half,
        }


def file_facts(files: list[ModelFile]) -> list[dict[str, Any]]:
    """What the report says of each file: no times, so that the same export gives the same report."""
    facts = []
    for file in files:
        fact: dict[str, Any] = {"path": file.path, "size_bytes": file.size_bytes}
        if file.precision == "int8" and file.parity:
            fact |= {key: file.parity[key] for key in ("mask_iou", "same_mask")}
        facts.append(fact)
    return facts


def mask_pairs(graphs: Graphs, images: ImageSet, cases: list[ReferenceCase]) -> list[MaskPair]:
    """PyTorch's and the INT8 model's mask for the first click and the first box of each reference image."""
    model, pairs = FeedModel(graphs), []
    for image, case in zip(images.images, cases, strict=False):
        embedding = model.encode(case.feed)
        height, width, _ = image.pixels.shape
        for kind, prompts, answer in zip(("click", "box"), case.prompts, case.answers, strict=False):
            expected, found = (
                best_masks(*answers)[:1]
                for answers in (
                    (answer["low_res_masks"], answer["iou_predictions"]),
                    model.decode(embedding, prompts),
                )
            )
            left, right = (low_res_to_picture(mask[0], case.size, (height, width)) for mask in (expected, found))
            title = f"{image.name}, {kind}, {graphs.backend}: IoU {mask_iou(found > 0, expected > 0)[0]:.3f}"
            pairs.append(MaskPair(image.pixels, title, left, right))
    return pairs


def write_int8_report(
    folder: Path,
    model: str,
    files: list[ModelFile],
    images: ImageSet,
    feeds: list[ImageFeed],
    cases: list[ReferenceCase],
    decisions: Decisions,
    parts: dict[str, Part],
) -> None:
    """Writes the report of the files in `folder`."""
    kept = {
        f"{s.part} {s.block.name}": f"alone it loses {s.judgement.drop:.2f} points "
        f"and saves {s.block.saved:.2f} million instructions on a Cortex-A76"
        for s in decisions.best.kept
    }
    report = Report(model, images.describe(), described_rules() | kept, decisions.to_dict())
    report.files = file_facts(files)
    quantized = [file for file in files if file.precision == "int8"]
    if any(file.engine == OBSERVED.name for file in quantized):
        prompts = [decoder_inputs(OBSERVED, case.embedding, prompt) for case in cases for prompt in case.prompts]
        images_in = [{"image": feed.image} for feed in feeds[: len(cases)]]
        for name, inputs in (("encoder", images_in), ("decoder", prompts)):
            kept_float = frozenset(node for s in decisions.best.kept if s.part == name for node in s.block.nodes)
            quantized_graph, _ = int8_graph(parts[name], kept_float)
            report.layers[name] = layer_errors(parts[name].graph, quantized_graph, inputs)
    pair = [file for file in quantized if file.engine == quantized[0].engine]
    report.pairs = mask_pairs(open_files(folder, feeds[0].manifest, pair), images, cases)
    write_report(report, folder)
