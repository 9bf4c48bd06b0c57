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
from tinysam.export.decoder_graph import DecoderGraph
from tinysam.export.int8_budget import (
    BudgetError,
    Sensitivity,
    candidates,
    check_budget,
    choose,
    float_judge,
    sensitivities,
)
from tinysam.export.int8_files import calibrate_files, calibration_runs, float_model
from tinysam.export.tinyvit_graph import TinyViTGraph
from tinysam.runtime.manifest import ModelFile, read_manifest
from tinysam.runtime.mask_choice import choose_mask

BLOCKS = {"encoder": TinyViTGraph.BLOCKS, "decoder": DecoderGraph.BLOCKS}


def block(name: str, drop: float, saved: float) -> Sensitivity:
    return Sensitivity("encoder", Block(name, (f"{name}.a", f"{name}.b"), saved), Judgement(drop, 0.9, 1.0))


FOUND = [
    block("cheap", 0.5, 10.0),
    block("costly", 0.6, 100.0),
    block("harmless", -0.1, 1.0),
    block("tiny", 0.2, 1.0),
    block("worthless", -0.1, 0.05),
]


def test_worthless_blocks_come_first_then_most_points_per_instruction_and_harmless_blocks_never() -> None:
    assert [s.block.name for s in candidates(FOUND)] == ["worthless", "tiny", "cheap", "costly"]


@pytest.mark.parametrize(("max_drop", "expected"), [(None, 1), (2.0, 1), (0.9, 3), (0.0, 4)])
def test_blocks_become_float_until_the_budget_is_met(max_drop: float | None, expected: int) -> None:
    drops = {2: 1.3, 4: 1.1, 6: 0.8, 8: 0.2}  # by number of nodes in float
    written: list[int] = []

    def write(nodes: frozenset[str]) -> list[ModelFile]:
        written.append(len(nodes))
        return []

    best, attempts = choose(
        write, lambda _: {"onnx": Judgement(drops[written[-1]], 1, 1), "tflite": Judgement(0, 1, 1)}, FOUND, max_drop
    )
    assert len(best.kept) == expected
    assert len(attempts) == expected
    if max_drop == 0.0:
        with pytest.raises(BudgetError, match=r"loses 0\.20 points .* 4 blocks in float, --max-drop allows 0"):
            check_budget(best, max_drop, Path("there"))
    else:
        check_budget(best, max_drop, Path("there"))


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
    model = float_model(tmp_path)
    feeds = list(image_feeds(load_image_set(None, 2, long_side=448).images, manifest))
    runs = calibration_runs(model, feeds, 112, 0)
    calibration = calibrate_files(tmp_path, runs, {}, "minmax")
    judge = float_judge(model, runs, 0, partial(choose_mask, manifest.mask_choice, manifest.mask_tokens))
    found = sensitivities(tmp_path, calibration, "x86", model, judge, lambda done, total: None, BLOCKS)
    assert {s.part for s in found} == {"encoder", "decoder"}
    assert all(0.8 < s.judgement.agreement <= 1 for s in found)
    assert any(s.judgement.agreement < 1 for s in found)
    # 2,652 million multiply-accumulates in the encoder's convolutions and linear layers
    assert sum(s.block.saved for s in found if s.part == "encoder") == pytest.approx(0.23 * 2652, rel=0.06)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decoder.fp32.onnx", "encoder.fp32.onnx"]
