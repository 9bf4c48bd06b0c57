"""The INT8 half of an export: ranges, search, sensitivity, what stays in float, files, report."""

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tinysam.calibration.feeds import ImageFeed, image_feeds
from tinysam.calibration.images import ImageSet, judged_images
from tinysam.calibration.judge import Choose, Judge
from tinysam.export.decoder_graph import DecoderGraph
from tinysam.export.encoder_graph import graph_class
from tinysam.export.engine import open_files
from tinysam.export.formats import OBSERVED
from tinysam.export.int8 import report as int8_report
from tinysam.export.int8.budget import (
    SENSITIVITY_IMAGES,
    Attempt,
    Budget,
    Sensitivity,
    check_budget,
    choose,
    float_judge,
    judge_files,
    sensitivities,
    warning,
)
from tinysam.export.int8.files import (
    Quantizers,
    Run,
    calibrate_files,
    calibration_runs,
    check_masks,
    quantizers_of,
    write_int8,
)
from tinysam.export.int8.half import HalfTrial, try_half, write_half
from tinysam.export.int8.part import Calibration, Part
from tinysam.export.int8.search import graphs, search
from tinysam.export.progress import Progress
from tinysam.export.reference import ReferenceCase
from tinysam.export.settings import LEAST_MASK_IOU, MAX_DROP, ExportSettings
from tinysam.models.sam import Sam
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.manifest import Manifest, ModelFile
from tinysam.runtime.mask_choice import choose_mask

JUDGE_VIEWS = 40
"""Views of the calibration photographs on which whole models are judged."""
SEARCH_START = "mse"
"""How the ranges are found from which the search starts."""


def quantization_steps(settings: ExportSettings) -> int:
    """How many steps `Quantization.run` shows."""
    trials = settings.has_half + (settings.ranges == "search")
    return 1 + trials + 3 * ("int8" in settings.precisions) + ("fp16" in settings.precisions)


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

    def run(self, cache: Path) -> list[ModelFile]:
        """Writes INT8 files with their report and fp16 files; `cache` keeps what an interrupted search found.

        Raises:
            CalibrationError: images or graph cannot be used.
            ParityError: the files are not fit to be published.
            BudgetError: `max_drop` cannot be met; the report is kept beside the artifact folder.
        """
        pair = [file for file in self.floats if file.engine == OBSERVED.name]
        floats = open_files(self.folder, self.manifest, pair)
        runs, calibration = self.calibrate(floats, cache)
        patterns = {"encoder": graph_class(self.sam.image_encoder).BLOCKS, "decoder": DecoderGraph.BLOCKS}
        parts = {
            name: Part(self.folder, name, calibration, self.settings.target, patterns[name])
            for name in calibration.ranges
        }
        some = runs[:: max(1, len(runs) // SENSITIVITY_IMAGES)][:SENSITIVITY_IMAGES]
        judge = float_judge(floats, [run.feed for run in some], self.settings.seed, self.choose)
        trial = self.try_half(parts, floats, runs, judge) if self.settings.has_half else None
        files: list[ModelFile] = []
        quantizers = quantizers_of(parts, self.settings.formats, trial is not None and trial.passed)
        if trial is not None and "fp16" in self.settings.precisions:
            files += self.write_half(quantizers, trial)
        if "int8" in self.settings.precisions:
            files += self.write_int8(floats, calibration, parts, quantizers, judge, trial)
        return files

    @property
    def manifest(self) -> Manifest:
        """The model's, whatever files it lists."""
        return self.feeds[0].manifest

    def try_half(self, parts: dict[str, Part], floats: Graphs, runs: list[Run], judge: Judge) -> HalfTrial:
        """Whether the model bears fp16."""
        with self.progress.step("trial of fp16") as details:
            trial = try_half(parts, floats, runs, judge)
            agreement = f"{trial.judgement.agreement:.4f}" if trial.judgement else "not measured"
            details.append(
                f"(IoU with fp32 masks {agreement}{'' if trial.passed else f'; not allowed: {trial.reason}'})"
            )
        return trial

    def write_half(self, quantizers: Quantizers, trial: HalfTrial) -> list[ModelFile]:
        """Files with fp16 weights."""
        files = []
        for engine in self.settings.formats_with("fp16"):
            with self.progress.step(f"encoder and decoder {engine} fp16") as details:
                made = write_half(self.folder, self.manifest, quantizers[engine], trial, self.cases)
                details.append(f"({sum(file.size_bytes for file in made) / 1e6:.1f} MB)")
            files += made
        return files

    def write_int8(
        self,
        floats: Graphs,
        calibration: Calibration,
        parts: dict[str, Part],
        quantizers: Quantizers,
        judge: Judge,
        trial: HalfTrial | None,
    ) -> list[ModelFile]:
        """INT8 files within the budget, and their report; raises as `run`."""
        with self.progress.step("sensitivity of every block") as details:
            found = sensitivities(parts, floats, judge, self.progress.tell)
            worst = min(found, key=lambda s: s.judgement.agreement)
            details.append(
                f"(worst alone: {worst.part} {worst.block.name}, IoU with fp32 masks {worst.judgement.agreement:.3f})"
            )
        best, attempts = self.write_within_budget(floats, calibration, quantizers, found)
        half = trial.describe() if trial is not None else None
        report = self.write_report(best, attempts, found, calibration, parts, half)
        check_budget(best, self.budget, found, report)
        facts = {"fp16": half, "warning": warning(best, self.budget, Budget(MAX_DROP, LEAST_MASK_IOU))}
        return [replace(file, quantization={**(file.quantization or {}), **facts}) for file in best.files]

    @property
    def budget(self) -> Budget:
        """What may be lost."""
        return Budget(self.settings.max_drop, self.settings.least_mask_iou)

    @property
    def choose(self) -> Choose:
        """Which mask a user of the model gets."""
        return partial(choose_mask, self.settings.variant.mask_choice, self.settings.mask_tokens)

    def calibrate(self, floats: Graphs, cache: Path) -> tuple[list[Run], Calibration]:
        """Ranges on the photographs, and the search if it was asked for."""
        settings, images = self.settings, self.images
        method = SEARCH_START if settings.ranges == "search" else settings.ranges
        with self.progress.step("calibration") as details:
            runs = calibration_runs(floats, self.feeds, settings.seed)
            calibration = calibrate_files(self.folder, runs, images.describe(), method)
            skipped = "".join(f", {count} {reason}" for reason, count in images.skipped.items())
            details.append(f"({len(runs)} images from {images.source}{skipped})")
        if settings.ranges == "search":
            with self.progress.step("search for scales"):
                modules = graphs(self.sam, settings.mask_tokens)
                calibration = search(self.folder, modules, calibration, runs, cache, settings.seed, self.progress.tell)
        return runs, calibration

    def write_within_budget(
        self,
        floats: Graphs,
        calibration: Calibration,
        quantizers: Quantizers,
        found: list[Sensitivity],
    ) -> tuple[Attempt, list[Attempt]]:
        """INT8 files of every engine, within the budget if that is possible."""
        settings = self.settings

        def write(keep_float: frozenset[str]) -> list[ModelFile]:
            return [
                file
                for engine in settings.formats_with("int8")
                for file in write_int8(
                    quantizers[engine],
                    calibration.images,
                    settings.image_size,
                    len(settings.mask_tokens),
                    keep_float,
                )
            ]

        with self.progress.step("encoder and decoder int8") as details:
            views = image_feeds(judged_images(self.images, JUDGE_VIEWS), self.manifest)
            judge = float_judge(floats, list(views), settings.seed + 1, self.choose)
            judged = partial(judge_files, judge, self.folder, self.manifest)
            best, attempts = choose(write, judged, found, self.budget)
            if best is not attempts[-1]:
                best = replace(best, files=write(best.nodes))
            best = replace(best, files=[file for engine in best.judgements for file in self.check(best, engine)])
            size = sum(file.size_bytes for file in best.files) / 1e6
            agreements = ", ".join(f"{engine} {j.agreement:.3f}" for engine, j in best.judgements.items())
            kept = f", {len(best.kept)} blocks in float" if best.kept else ""
            details.append(
                f"({size:.1f} MB, IoU with fp32 masks: {agreements}, drop {best.loser.drop:.2f} points "
                f"+-{best.loser.drop_error:.2f}{kept})"
            )
        return best, attempts

    def check(self, attempt: Attempt, engine: str) -> list[ModelFile]:
        """The files of one engine with their agreement with PyTorch."""
        pair = [file for file in attempt.files if file.engine == engine]
        parity = check_masks(open_files(self.folder, self.manifest, pair), self.cases)
        return [replace(file, parity=parity) for file in pair]

    def write_report(
        self,
        best: Attempt,
        attempts: list[Attempt],
        found: list[Sensitivity],
        calibration: Calibration,
        parts: dict[str, Part],
        half: dict[str, object] | None,
    ) -> Path:
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
                    self.settings.target,
                    self.settings.ranges,
                    self.settings.max_drop,
                    best,
                    attempts,
                    found,
                    {part: equalized.rows for part, equalized in calibration.equalized.items()},
                    half,
                ),
                parts,
            )
        kept = self.settings.out / f"{name}-report"
        if self.budget.max_drop is not None and not best.meets(self.budget):
            kept.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob("report.*"):
                shutil.copy(path, kept)
        return kept
