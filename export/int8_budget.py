"""What stays in float: the sensitivity of every block, and a choice for an accuracy budget."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from tinysam.calibration.arrays import Floats
from tinysam.calibration.blocks import WORTH, Block, all_but, blocks_of, order
from tinysam.calibration.feeds import Feed
from tinysam.calibration.judge import Judge, Judgement
from tinysam.calibration.onnx_graph import Graph
from tinysam.export.errors import ParityError
from tinysam.export.int8_files import Calibration, FileModel, FloatModel, Run, write_part
from tinysam.export.tensors import decoder_inputs
from tinysam.runtime import engines
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


def float_judge(model: FloatModel, runs: list[Run], seed: int) -> Judge:
    """Questions about photographs with the float files' answers."""
    return Judge([(run.image, run.size) for run in runs], model.encode, model.decode, seed)


def session(path: Path) -> ort.InferenceSession:
    """A quiet session with every core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = engines.usable_cores()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options)


def sensitivities(
    folder: Path,
    calibration: Calibration,
    target: str,
    model: FloatModel,
    judge: Judge,
    tell: Callable[[int, int], None],
) -> list[Sensitivity]:
    """Judges every block of both parts on its own, in onnxruntime, in order of execution."""
    blocks = {
        part: blocks_of(Graph(onnx.load(folder / f"{part}.fp32.onnx")), calibration.of(part).observations)
        for part in PARTS
    }
    found: list[Sensitivity] = []
    for part in PARTS:
        for block in blocks[part]:
            write_part(folder, part, "onnx", calibration.of(part), target, all_but(blocks[part], block.name))
            path = folder / f"{part}.int8.onnx"
            alone = session(path)
            path.unlink()
            if part == "encoder":
                judgement = judge.judge(lambda image, s=alone: s.run(None, {"image": image})[0], model.decode)  # type: ignore[misc]
            else:
                judgement = judge.judge(None, decoder_of(alone))
            found.append(Sensitivity(part, block, judgement))
            tell(len(found), sum(map(len, blocks.values())))
    return found


def decoder_of(running: ort.InferenceSession) -> Callable[[Floats, Feed], tuple[Floats, Floats]]:
    """A decoder session as a function."""

    def decode(embedding: Floats, feed: Feed) -> tuple[Floats, Floats]:
        masks, iou = running.run(None, decoder_inputs("onnx", embedding, feed))
        return masks, iou

    return decode


def candidates(found: list[Sensitivity]) -> list[Sensitivity]:
    """Blocks in the order in which they should become float: most points lost per instruction saved first."""
    named = {f"{s.part}/{s.block.name}": s for s in found}
    drops = {name: s.judgement.drop for name, s in named.items()}
    blocks = [replace(s.block, name=name) for name, s in named.items()]
    return [named[block.name] for block in order(blocks, drops)]


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
    small = sum(s.block.saved < WORTH for s in rescued)
    for count in range(small, len(rescued) + 1):
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
