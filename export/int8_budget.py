"""What stays in float: the sensitivity of every block, and a choice for an accuracy budget."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from tinysam.calibration.blocks import Block, all_but, blocks_of
from tinysam.calibration.judge import Choose, Judge, Judgement
from tinysam.calibration.onnx_graph import Graph
from tinysam.export.errors import ParityError
from tinysam.export.int8_files import Calibration, FileModel, OnnxModel, Run, session, write_part
from tinysam.runtime.manifest import ModelFile

SENSITIVITY_IMAGES = 4
"""Photographs on which single blocks are judged."""
PARTS = ("encoder", "decoder")


@dataclass(frozen=True)
class Sensitivity:
    """What one block alone does to the masks when it is INT8 and everything else is float."""

    part: str
    block: Block
    judgement: Judgement

    def row(self) -> dict[str, Any]:
        """For the report."""
        return {
            "part": self.part,
            "block": self.block.name,
            "saved_million_instructions": round(self.block.saved, 2),
            **{name: round(value, 4) for name, value in asdict(self.judgement).items()},
        }


def float_judge(model: OnnxModel, runs: list[Run], seed: int, choose: Choose) -> Judge:
    """Questions about photographs with the float files' answers."""
    return Judge([(run.image, run.size) for run in runs], model.encode, model.decode, seed, choose)


def sensitivities(
    folder: Path,
    calibration: Calibration,
    target: str,
    model: OnnxModel,
    judge: Judge,
    tell: Callable[[int, int], None],
    patterns: Mapping[str, tuple[str, ...]],
) -> list[Sensitivity]:
    """Judges every block of both parts on its own, in onnxruntime, in order of execution.

    `patterns` names the blocks of each part, see `block_name`.
    """
    blocks = {
        part: blocks_of(
            Graph(onnx.load(folder / f"{part}.fp32.onnx")), calibration.of(part).observations, patterns[part]
        )
        for part in PARTS
    }
    found: list[Sensitivity] = []
    for part in PARTS:
        for block in blocks[part]:
            write_part(folder, part, "onnx", calibration.of(part), target, all_but(blocks[part], block.name))
            path = folder / f"{part}.int8.onnx"
            alone = replace(model, **{part: session(path)})
            path.unlink()
            judgement = judge.judge(alone.encode if part == "encoder" else None, alone.decode)
            found.append(Sensitivity(part, block, judgement))
            tell(len(found), sum(map(len, blocks.values())))
    return found


def candidates(found: list[Sensitivity]) -> list[Sensitivity]:
    """Blocks in the order in which they should become float.

    Those that save next to nothing come first; then those that hurt, most points per instruction saved first. Blocks
    that do neither are left out.
    """
    worthless = [s for s in found if s.block.worthless]
    hurting = [s for s in found if not s.block.worthless and s.judgement.drop > 0]
    return worthless + sorted(hurting, key=lambda s: s.judgement.drop / s.block.saved, reverse=True)


class BudgetError(ParityError):
    """INT8 files lose more than the budget allows, whatever stays in float."""


@dataclass(frozen=True)
class Attempt:
    """INT8 files of every engine with some blocks in float."""

    kept: tuple[Sensitivity, ...]
    """Blocks in float."""
    files: list[ModelFile]
    judgements: dict[str, Judgement]
    """By engine."""

    @property
    def nodes(self) -> frozenset[str]:
        """`part/node` of the linear layers in float."""
        return frozenset(f"{s.part}/{node}" for s in self.kept for node in s.block.nodes)

    @property
    def drop(self) -> float:
        """Points lost by the engine that loses most."""
        return max(judgement.drop for judgement in self.judgements.values())


def judge_files(judge: Judge, folder: Path, files: list[ModelFile]) -> dict[str, Judgement]:
    """Judges the encoder and decoder files of every engine."""
    pairs = {file.engine: [f for f in files if f.engine == file.engine] for file in files}
    models = ((engine, FileModel(folder, pair)) for engine, pair in pairs.items())
    return {engine: judge.judge(model.encode, model.decode) for engine, model in models}


def choose(
    write: Callable[[frozenset[str]], list[ModelFile]],
    judged: Callable[[list[ModelFile]], dict[str, Judgement]],
    found: list[Sensitivity],
    max_drop: float | None,
) -> tuple[Attempt, list[Attempt]]:
    """Puts blocks into float until the drop is within the budget: those that save nothing, then one at a time.

    Args:
        write: makes the INT8 files of every engine with these nodes in float.
        judged: judges files by engine.
        found: sensitivity of every block.
        max_drop: points of mean IoU; None accepts the first attempt.

    Returns:
        The attempt that is within the budget, or else the best one; and all attempts.
    """
    attempts: list[Attempt] = []
    rescued = candidates(found)
    worthless = sum(s.block.worthless for s in rescued)
    for count in range(worthless, len(rescued) + 1):
        attempt = Attempt(tuple(rescued[:count]), [], {})
        files = write(attempt.nodes)
        attempts.append(replace(attempt, files=files, judgements=judged(files)))
        if max_drop is None or attempts[-1].drop <= max_drop:
            return attempts[-1], attempts
    return min(attempts, key=lambda attempt: attempt.drop), attempts


def check_budget(attempt: Attempt, max_drop: float | None, report: Path) -> None:
    """BudgetError if the attempt loses more points than `max_drop`."""
    if max_drop is not None and attempt.drop > max_drop:
        blocks = f"{len(attempt.kept)} blocks" if attempt.kept else "nothing"
        raise BudgetError(
            f"INT8 loses {attempt.drop:.2f} points of mean IoU with {blocks} in float, --max-drop allows {max_drop:g}; "
            f"nothing was published, the report is in {report}: allow more, or calibrate on photographs like yours"
        )
