"""Half precision: whether a model bears it, and its files with fp16 weights."""

from dataclasses import dataclass, replace
from pathlib import Path

from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.half import check_range, rounded_model
from tinysam.calibration.judge import Judge, Judgement
from tinysam.export.engine import FeedModel, open_files, with_graph
from tinysam.export.errors import ParityError
from tinysam.export.formats import Quantizer
from tinysam.export.int8.files import Run, check_masks, part_feeds
from tinysam.export.int8.part import Part
from tinysam.export.reference import ReferenceCase
from tinysam.export.tensors import model_file
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.manifest import Manifest, ModelFile

LEAST_AGREEMENT = 0.98
"""Mean IoU with the float masks that the graph rounded to fp16 has to keep."""


@dataclass(frozen=True)
class HalfTrial:
    """Whether a model may run in fp16."""

    largest: dict[str, float]
    """Part -> largest value on photographs."""
    judgement: Judgement | None
    """Of the graph with all results rounded to fp16."""
    reason: str = ""
    """Why it may not; empty if it may."""

    @property
    def passed(self) -> bool:
        """Whether it may."""
        return not self.reason

    def describe(self) -> dict[str, object]:
        """For manifest and report."""
        agreement = None if self.judgement is None else self.judgement.agreement
        return {"largest_value": self.largest, "mask_iou_rounded": agreement, "reason": self.reason}


def try_half(parts: dict[str, Part], floats: Graphs, runs: list[Run], judge: Judge) -> HalfTrial:
    """Checks the range of every tensor of the equalized float graphs, and judges them rounded to fp16."""
    largest: dict[str, float] = {}
    try:
        for name, part in parts.items():
            largest[name] = check_range(part.graph, part_feeds(name, runs), name)
    except CalibrationError as error:
        return HalfTrial(largest, None, str(error))
    rounded = floats
    for name, part in parts.items():
        rounded = with_graph(rounded, name, rounded_model(part.graph))
    model = FeedModel(rounded)
    judgement = judge.judge(model.encode, model.decode)
    if not judgement.agreement >= LEAST_AGREEMENT:
        return HalfTrial(
            largest,
            judgement,
            f"fp16: rounded to fp16 the model keeps an IoU of {judgement.agreement:.3f} with its masks, "
            f"{LEAST_AGREEMENT:g} needed; use fp32 or int8",
        )
    return HalfTrial(largest, judgement)


def write_half(
    folder: Path, manifest: Manifest, quantizers: dict[str, Quantizer], trial: HalfTrial, cases: list[ReferenceCase]
) -> list[ModelFile]:
    """Writes encoder and decoder of one engine with fp16 weights.

    Raises:
        ParityError: the model does not bear fp16, or the files' outputs are not finite.
    """
    if not trial.passed:
        raise ParityError(f"{trial.reason}; nothing was published")
    files, masks = [], len(manifest.mask_tokens)
    for part, quantizer in quantizers.items():
        quantizer.write_half()
        file = model_file(folder, part, "fp16", quantizer.form.name, manifest.image_size, masks)
        scheme = "weights in fp16"
        if part == "encoder":
            scheme += ", arithmetic in fp16 where the processor computes in it"
        files.append(replace(file, quantization={"scheme": scheme, **trial.describe()}))
    parity = check_masks(open_files(folder, manifest, files), cases)
    return [replace(file, parity=parity) for file in files]
