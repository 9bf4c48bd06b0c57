"""Which blocks become float, and when the budget is called unreachable."""

from functools import partial
from pathlib import Path

import onnx
import pytest

from tinysam.calibration.blocks import Block, all_but, block_name, blocks_of
from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.feeds import image_feeds
from tinysam.calibration.images import load_image_set
from tinysam.calibration.judge import Judgement
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.operations import ONNX, TFLITE
from tinysam.export.decoder_graph import DecoderGraph
from tinysam.export.int8.budget import (
    Attempt,
    Budget,
    BudgetError,
    Sensitivity,
    candidates,
    check_budget,
    choose,
    float_judge,
    loss,
    sensitivities,
    warning,
)
from tinysam.export.int8.files import calibrate_files, calibration_runs
from tinysam.export.int8.part import Part
from tinysam.export.tinyvit_graph import TinyViTGraph
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.manifest import ModelFile, read_manifest
from tinysam.runtime.mask_choice import choose_mask

BLOCKS = {"encoder": TinyViTGraph.BLOCKS, "decoder": DecoderGraph.BLOCKS}


def block(name: str, agreement: float, saved: float) -> Sensitivity:
    layers = Block(name, (f"{name}.a", f"{name}.b"), False, saved)
    return Sensitivity("encoder", layers, Judgement(0.1, agreement, 1.0))


FOUND = [
    block("cheap", 0.95, 10.0),
    block("costly", 0.94, 100.0),
    block("harmless", 1.0, 1.0),
    block("tiny", 0.98, 1.0),
    block("negligible", 1.0, 0.05),
]
ALLOWED = 0.95


def test_negligible_blocks_come_first_then_most_iou_per_instruction_and_harmless_blocks_never() -> None:
    assert [s.block.name for s in candidates(FOUND)] == ["negligible", "tiny", "cheap", "costly"]


def chosen(losses: dict[int, tuple[float, float]], budget: Budget) -> tuple[Attempt, list[Attempt]]:
    """The choice when so many blocks in float give this drop and this agreement."""
    written: list[int] = []

    def write(nodes: frozenset[str]) -> list[ModelFile]:
        written.append(len(nodes) // 2)
        return []

    def judged(_: list[ModelFile]) -> dict[str, Judgement]:
        return {"onnx": Judgement(*losses[written[-1]], 1), "tflite": Judgement(0, 1, 1)}

    return choose(write, judged, FOUND, budget)


LOSSES = {1: (1.3, 0.90), 2: (1.1, 0.92), 3: (0.8, 0.96), 4: (0.2, 0.97)}


@pytest.mark.parametrize(
    ("max_drop", "least", "expected"),
    [(None, 0.99, 1), (2.0, 0.9, 1), (2.0, 0.91, 2), (2.0, 0.95, 3), (0.9, 0.5, 3), (0.5, 0.95, 4)],
)
def test_as_few_blocks_as_possible_become_float(max_drop: float | None, least: float, expected: int) -> None:
    budget = Budget(max_drop, least)
    best, attempts = chosen(LOSSES, budget)
    assert len(best.kept) == expected
    assert len(attempts) <= expected
    check_budget(best, budget, FOUND, Path("there"))


def test_a_budget_of_0_is_met_by_files_that_lose_nothing_and_by_no_others() -> None:
    budget = Budget(0.0, ALLOWED)
    best, _ = chosen({**LOSSES, 3: (0.0, 0.999), 4: (0.0, 1.0)}, budget)
    assert len(best.kept) == 3
    check_budget(best, budget, FOUND, Path("there"))
    best, _ = chosen(LOSSES, budget)
    with pytest.raises(BudgetError, match=r"loses 0\.20 points .* 4 blocks in float, allowed are 0 points and 0\.95"):
        check_budget(best, budget, FOUND, Path("there"))


def test_the_error_names_the_blocks_that_hurt_and_what_to_try() -> None:
    best, _ = chosen(LOSSES, Budget(0.1, ALLOWED))
    with pytest.raises(BudgetError) as raised:
        check_budget(best, Budget(0.1, ALLOWED), FOUND, Path("there"))
    (line,) = str(raised.value).splitlines()
    assert "nothing was published, the report is in there" in line
    assert "encoder costly (0.940), encoder cheap (0.950), encoder tiny (0.980)" in line
    assert "--calib-dir" in line
    assert "--max-drop" in line


def test_the_drop_is_told_with_the_interval_of_its_own_engine() -> None:
    judgements = {
        "onnx": Judgement(0.2, 0.90, 1, drop_error=0.7),
        "tflite": Judgement(1.5, 0.94, 1, drop_error=0.3),
    }
    assert loss(Attempt((), [], judgements)) == (
        "INT8 loses 1.50 points of mean IoU (+-0.30) and keeps an IoU of 0.900 with the fp32 masks"
    )


def test_files_published_without_a_budget_carry_a_warning_if_they_lose_more_than_the_default() -> None:
    default, none = Budget(0.5, ALLOWED), Budget(None, ALLOWED)
    assert warning(chosen({**LOSSES, 1: (0.1, 0.97)}, none)[0], none, default) is None
    told = warning(chosen(LOSSES, none)[0], none, default)
    assert told is not None
    assert told.startswith("INT8 loses 1.30 points of mean IoU")
    assert "0.900 with the fp32 masks" in told
    assert warning(chosen(LOSSES, Budget(2.0, 0.5))[0], Budget(2.0, 0.5), default) is None


def test_a_weight_belongs_to_the_block_that_the_edge_graph_names() -> None:
    patterns = ("stem", "stages.*.*")
    assert block_name("stages.1.5.fc1.weight", patterns) == "stages.1.5"
    assert block_name("wrapper.stem.0.weight", patterns) == "stem"
    with pytest.raises(CalibrationError, match="weight neck.weight belongs to no block"):
        block_name("neck.weight", patterns)


def test_blocks_of_nano_cover_every_layer_once(artifacts_dir: Path) -> None:
    for part, expected in (("encoder", "stages.1.5"), ("decoder", "transformer.layers.0")):
        graph = Graph(onnx.load(artifacts_dir / f"{part}.fp32.onnx"))
        blocks = blocks_of(graph, {}, BLOCKS[part])
        nodes = [node for b in blocks for node in b.nodes]
        assert expected in [b.name for b in blocks]
        assert sorted(nodes) == sorted(node.name for node in graph.linear_nodes())
        assert all_but(blocks, expected) == set(nodes) - {n for b in blocks if b.name == expected for n in b.nodes}


def test_every_block_is_judged_and_a_block_that_computes_nothing_costs_nothing(
    artifacts_dir: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(artifacts_dir)
    for part in ("encoder", "decoder"):
        (tmp_path / f"{part}.fp32.onnx").write_bytes((artifacts_dir / f"{part}.fp32.onnx").read_bytes())
    floats = Graphs(tmp_path, "onnx", "fp32", manifest=manifest)
    feeds = list(image_feeds(load_image_set(None, 2, long_side=448).images, manifest))
    runs = calibration_runs(floats, feeds, 0)
    calibration = calibrate_files(tmp_path, runs, {}, "minmax")
    judge = float_judge(floats, feeds, 0, partial(choose_mask, manifest.mask_choice, manifest.mask_tokens))
    parts = {part: Part(tmp_path, part, calibration, "x86", BLOCKS[part]) for part in ("encoder", "decoder")}
    found = sensitivities(parts, floats, judge, lambda done, total: None)
    assert {s.part for s in found} == {"encoder", "decoder"}
    # all other blocks of the decoder work on tokens
    assert {s.block.name for s in found if s.part == "decoder"} == {"mask_prompt", "upscaling"}
    kept = {engine: parts["encoder"].always_float(engine) for engine in (ONNX, TFLITE)}
    only = {b.name for b in parts["encoder"].blocks if set(b.nodes) <= kept[TFLITE] - kept[ONNX]}
    # mergings are float for both engines, the convolutional stage for LiteRT
    assert only == {"convolutions.0", "convolutions.1"}
    assert all(0.8 < s.judgement.agreement <= 1 for s in found)
    assert any(s.judgement.agreement < 1 for s in found)
    assert not [s for s in found if s.block.name.startswith("mergings")]
    # 2,652 million multiply-accumulates in the encoder's convolutions and linear layers
    encoder = parts["encoder"].blocks
    assert sum(b.saved for b in encoder if b.name != "patch_embed") == pytest.approx(0.23 * 2652, rel=0.06)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decoder.fp32.onnx", "encoder.fp32.onnx"]
