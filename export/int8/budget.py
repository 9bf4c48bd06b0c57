"""What stays in float: the sensitivity of every block, and a choice for an accuracy budget."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinysam.calibration.blocks import Block, all_but
from tinysam.calibration.feeds import ImageFeed
from tinysam.calibration.judge import Choose, Judge, Judgement, View
from tinysam.export.engine import FeedModel, open_files, with_graph
from tinysam.export.errors import ParityError
from tinysam.export.formats.onnx import int8_graph
from tinysam.export.int8.part import Part
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.manifest import Manifest, ModelFile

SENSITIVITY_IMAGES = 4
"""Photographs on which single blocks are judged."""


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
            **{name: value and round(value, 4) for name, value in self.judgement.describe().items()},
        }


def float_judge(floats: Graphs, feeds: list[ImageFeed], seed: int, choose: Choose) -> Judge:
    """Questions about photographs with the float files' answers."""
    model = FeedModel(floats)
    views = [View(feed, feed.size, feed.photograph) for feed in feeds]
    return Judge(views, model.encode, model.decode, seed, choose, floats.manifest.box_masks)


def sensitivities(
    parts: dict[str, Part],
    floats: Graphs,
    judge: Judge,
    tell: Callable[[int, int], None],
) -> list[Sensitivity]:
    """Judges every block of both parts on its own, in ONNX Runtime, in order of execution."""
    blocks = {name: [b for b in part.blocks if not b.always_float] for name, part in parts.items()}
    found: list[Sensitivity] = []
    for name, part in parts.items():
        for block in blocks[name]:
            made, _ = int8_graph(part, all_but(blocks[name], block.name))
            alone = FeedModel(with_graph(floats, name, made))
            judgement = judge.judge(alone.encode if name == "encoder" else None, alone.decode)
            found.append(Sensitivity(name, block, judgement))
            tell(len(found), sum(map(len, blocks.values())))
    return found


@dataclass(frozen=True)
class Budget:
    """What INT8 files may lose."""

    max_drop: float | None
    """Points of mean IoU; None publishes whatever they lose."""
    least_agreement: float
    """Mean IoU with the masks of the float files."""

    def met(self, judgement: Judgement) -> bool:
        """Whether the files of one engine stay within it."""
        return judgement.drop <= (self.max_drop or 0) and judgement.agreement >= self.least_agreement


def candidates(found: list[Sensitivity]) -> list[Sensitivity]:
    """Blocks in the order in which they should become float.

    Those that save next to nothing come first; then those that change masks, most lost IoU with the float masks per
    instruction saved first. Agreement decides: it varies less from photograph to photograph than the drop does.
    """
    negligible = [s for s in found if s.block.negligible]
    others = [s for s in found if not s.block.negligible and s.judgement.agreement < 1]
    return negligible + sorted(others, key=lambda s: (1 - s.judgement.agreement) / s.block.saved, reverse=True)


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

    def saved(self, found: list[Sensitivity]) -> float:
        """Millions of instructions saved by the blocks that are integer."""
        return sum(s.block.saved for s in found) - sum(s.block.saved for s in self.kept)

    @property
    def worst(self) -> Judgement:
        """Of the engine that keeps least of the float masks."""
        return min(self.judgements.values(), key=lambda judgement: judgement.agreement)

    @property
    def loser(self) -> Judgement:
        """Of the engine that loses most points."""
        return max(self.judgements.values(), key=lambda judgement: judgement.drop)

    def meets(self, budget: Budget) -> bool:
        """Whether every engine stays within a budget."""
        return all(budget.met(judgement) for judgement in self.judgements.values())


def judge_files(judge: Judge, folder: Path, manifest: Manifest, files: list[ModelFile]) -> dict[str, Judgement]:
    """Judges the encoder and decoder files of every engine."""
    pairs = {file.engine: [f for f in files if f.engine == file.engine] for file in files}
    models = ((engine, FeedModel(open_files(folder, manifest, pair))) for engine, pair in pairs.items())
    return {engine: judge.judge(model.encode, model.decode) for engine, model in models}


def choose(
    write: Callable[[frozenset[str]], list[ModelFile]],
    judged: Callable[[list[ModelFile]], dict[str, Judgement]],
    found: list[Sensitivity],
    budget: Budget,
) -> tuple[Attempt, list[Attempt]]:
    """Puts as few blocks as possible into float so that every engine stays within the budget.

    First only blocks that save nothing are float. If that is not enough, the number of the others is found by halving,
    in the order of `candidates`: the more of them are float, the less is lost.

    Args:
        write: makes the INT8 files of every engine with these nodes in float.
        judged: judges files by engine.
        found: sensitivity of every block.
        budget: what may be lost; without `max_drop` the first attempt is accepted.

    Returns:
        The attempt within the budget with the fewest blocks in float, or else the best one; and all attempts.
    """
    ordered = candidates(found)
    attempts: dict[int, Attempt] = {}

    def attempt(count: int) -> Attempt:
        plan = Attempt(tuple(ordered[:count]), [], {})
        files = write(plan.nodes)
        attempts[count] = replace(plan, files=files, judgements=judged(files))
        return attempts[count]

    fewest, most = sum(s.block.negligible for s in ordered), len(ordered)
    if attempt(fewest).meets(budget) or budget.max_drop is None:
        return attempts[fewest], list(attempts.values())
    while most - fewest > 1:  # `fewest` is not enough
        middle = (fewest + most) // 2
        if attempt(middle).meets(budget):
            most = middle
        else:
            fewest = middle
    if most not in attempts and most > fewest:
        attempt(most)
    enough = [made for made in attempts.values() if made.meets(budget)]
    if enough:
        return min(enough, key=lambda made: len(made.kept)), list(attempts.values())
    return max(attempts.values(), key=lambda made: made.worst.agreement), list(attempts.values())


def loss(attempt: Attempt) -> str:
    """What is lost in the engine that loses most, and kept in the one that keeps least, in words."""
    loser = attempt.loser
    return (
        f"INT8 loses {loser.drop:.2f} points of mean IoU (+-{loser.drop_error:.2f}) and keeps an IoU of "
        f"{attempt.worst.agreement:.3f} with the fp32 masks"
    )


def check_budget(attempt: Attempt, budget: Budget, found: list[Sensitivity], report: Path) -> None:
    """BudgetError if the attempt loses more than the budget allows; the message names the blocks that lose most."""
    if budget.max_drop is None or attempt.meets(budget):
        return
    worst = sorted(found, key=lambda s: s.judgement.agreement)[:3]
    blocks = ", ".join(f"{s.part} {s.block.name} ({s.judgement.agreement:.3f})" for s in worst)
    raise BudgetError(
        f"{loss(attempt)} with {len(attempt.kept)} blocks in float, allowed are {budget.max_drop:g} points and "
        f"{budget.least_agreement:g}; nothing was published, the report is in {report}. Blocks that lose most alone: "
        f"{blocks}. Try --calib-dir with photographs like yours, --ranges search, or --max-drop with more points"
    )


def warning(attempt: Attempt, budget: Budget, default: Budget) -> str | None:
    """What the manifest says of files that were published whatever they lose; None if they lose little."""
    if budget.max_drop is not None or attempt.meets(default):
        return None
    return loss(attempt)
