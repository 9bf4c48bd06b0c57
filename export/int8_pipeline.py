"""The INT8 half of an export: ranges, search, sensitivity, what stays in float, files, report."""

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tinysam.calibration.feeds import ImageFeed
from tinysam.calibration.images import ImageSet
from tinysam.calibration.judge import Choose
from tinysam.export import int8_report
from tinysam.export.decoder_graph import DecoderGraph
from tinysam.export.encoder_graph import graph_class
from tinysam.export.int8_budget import (
    SENSITIVITY_IMAGES,
    Attempt,
    Sensitivity,
    check_budget,
    choose,
    float_judge,
    judge_files,
    sensitivities,
)
from tinysam.export.int8_files import (
    Calibration,
    OnnxModel,
    Run,
    calibrate_files,
    calibration_runs,
    check_int8,
    float_model,
    write_int8,
)
from tinysam.export.int8_search import graphs, search
from tinysam.export.progress import Progress
from tinysam.export.reference import ReferenceCase
from tinysam.export.settings import ExportSettings
from tinysam.models.sam import Sam
from tinysam.runtime.manifest import ModelFile
from tinysam.runtime.mask_choice import choose_mask

JUDGE_IMAGES = 16
"""Photographs on which whole models are judged."""
SEARCH_START = "mse"
"""How the ranges are found from which the search starts."""


def quantization_steps(settings: ExportSettings) -> int:
    """How many steps `Quantization.run` shows."""
    return 4 + (settings.ranges == "search")


@dataclass(frozen=True)
class Quantization:
    """One run from the float files in `folder` to INT8 files beside them."""

    sam: Sam
    settings: ExportSettings
    images: ImageSet
    feeds: list[ImageFeed]
    cases: list[ReferenceCase]
    floats: list[ModelFile]
    """The float files."""
    folder: Path
    progress: Progress

    def run(self, notebook: Path) -> list[ModelFile]:
        """Writes INT8 files and report; `notebook` keeps what an interrupted search found.

        Raises:
            CalibrationError: images or graph cannot be used.
            ParityError: the files are not fit to be published.
            BudgetError: `max_drop` cannot be met; the report is kept beside the artifact folder.
        """
        model = float_model(self.folder)
        runs, calibration = self.calibrated(model, notebook)
        with self.progress.step("sensitivity of every block") as details:
            judge = float_judge(model, runs[:SENSITIVITY_IMAGES], self.settings.seed, self.choose)
            patterns = {"encoder": graph_class(self.sam.image_encoder).BLOCKS, "decoder": DecoderGraph.BLOCKS}
            found = sensitivities(
                self.folder, calibration, self.settings.target, model, judge, self.progress.tell, patterns
            )
            worst = max(found, key=lambda s: s.judgement.drop)
            details.append(f"(worst alone: {worst.part} {worst.block.name}, {worst.judgement.drop:.2f} points)")
        best, attempts = self.written(model, runs, calibration, found)
        report = self.report(best, attempts, found)
        check_budget(best, self.settings.max_drop, report)
        return best.files

    @property
    def choose(self) -> Choose:
        """Which mask a user of the model gets."""
        return partial(choose_mask, self.settings.variant.mask_choice, self.settings.mask_tokens)

    def calibrated(self, model: OnnxModel, notebook: Path) -> tuple[list[Run], Calibration]:
        """Ranges on the photographs, and the search if it was asked for."""
        settings, images = self.settings, self.images
        method = SEARCH_START if settings.ranges == "search" else settings.ranges
        with self.progress.step("calibration") as details:
            runs = calibration_runs(model, self.feeds, settings.image_size // 4, settings.seed)
            calibration = calibrate_files(self.folder, runs, images.describe(), method)
            skipped = "".join(f", {count} {reason}" for reason, count in images.skipped.items())
            details.append(f"({len(runs)} images from {images.source}{skipped})")
        if settings.ranges == "search":
            with self.progress.step("search for scales"):
                modules = graphs(self.sam, settings.mask_tokens)
                calibration = search(
                    self.folder, modules, calibration, runs, notebook, settings.seed, self.progress.tell
                )
        return runs, calibration

    def written(
        self, model: OnnxModel, runs: list[Run], calibration: Calibration, found: list[Sensitivity]
    ) -> tuple[Attempt, list[Attempt]]:
        """INT8 files of every engine, within the budget if that is possible."""
        settings = self.settings

        def write(keep_float: frozenset[str]) -> list[ModelFile]:
            return [
                file
                for engine in settings.formats
                for file in write_int8(
                    self.folder,
                    engine,
                    calibration,
                    settings.target,
                    settings.image_size,
                    len(settings.mask_tokens),
                    keep_float,
                )
            ]

        with self.progress.step("encoder and decoder int8") as details:
            judge = float_judge(model, runs[:JUDGE_IMAGES], settings.seed + 1, self.choose)
            judged = partial(judge_files, judge, self.folder)
            best, attempts = choose(write, judged, found, settings.max_drop)
            if best is not attempts[-1]:
                best = replace(best, files=write(best.nodes))
            best = replace(best, files=[file for engine in settings.formats for file in self.checked(best, engine)])
            size = sum(file.size_bytes for file in best.files) / 1e6
            told = ", ".join(f"{engine} {j.agreement:.3f}" for engine, j in best.judgements.items())
            kept = f", {len(best.kept)} blocks in float" if best.kept else ""
            details.append(f"({size:.1f} MB, IoU with fp32 masks: {told}, drop {best.drop:.2f} points{kept})")
        return best, attempts

    def checked(self, attempt: Attempt, engine: str) -> list[ModelFile]:
        """The files of one engine with their agreement with PyTorch."""
        pair = [file for file in attempt.files if file.engine == engine]
        parity = check_int8(self.folder, pair, self.cases, self.settings.least_mask_iou)
        return [replace(file, parity=parity) for file in pair]

    def report(self, best: Attempt, attempts: list[Attempt], found: list[Sensitivity]) -> Path:
        """Writes the report into the folder; where it stays if nothing is published."""
        name = self.settings.folder.name
        with self.progress.step("INT8 report"):
            int8_report.write_int8_report(
                self.folder,
                name,
                self.floats + best.files,
                self.images,
                self.feeds,
                self.cases,
                int8_report.Decisions(
                    self.settings.target, self.settings.ranges, self.settings.max_drop, best, attempts, found
                ),
            )
        kept = self.settings.out / f"{name}-report"
        if self.settings.max_drop is not None and best.drop > self.settings.max_drop:
            kept.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob("report.*"):
                shutil.copy(path, kept)
        return kept
