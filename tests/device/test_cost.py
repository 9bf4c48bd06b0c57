"""Instruction counts against hand arithmetic, and their attribution to operations."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.device.conftest import CACHE, emulator_or_skip
from tinysam.device.arm.root import BOOKWORM, PI4, PI5, Board
from tinysam.device.cost.guest_litert import clock_spans
from tinysam.device.cost.measure import MeasureError, attribute, measure
from tinysam.device.cost.models import PARTS, subjects
from tinysam.device.cost.plugin import CompilerMissing, Counts, build_plugin, read_regions

ROWS, INNER, COLUMNS = 64, 256, 128
MACS = ROWS * INNER * COLUMNS


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 matrix product and a float one of the same size."""
    random = np.random.default_rng(0)
    weights = {
        "w8": random.integers(-127, 127, (INNER, COLUMNS), dtype=np.int8),
        "w32": random.standard_normal((INNER, COLUMNS)).astype(np.float32),
        "one": np.float32(0.05),
        "zero": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "one", "zero"], ["q"]),
        helper.make_node("MatMulInteger", ["q", "w8", "zero", "zero"], ["integer"]),
        helper.make_node("Cast", ["integer"], ["a"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["image", "w32"], ["b"]),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (ROWS, INNER))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (ROWS, COLUMNS)) for name in ("a", "b")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("cost") / "product.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("board", [PI4, PI5], ids=lambda board: board.cpu)
def test_counts_equal_the_arithmetic_of_a_matrix_product(product: Path, board: Board) -> None:
    emulator = emulator_or_skip(BOOKWORM, board)
    try:
        plugin = build_plugin(CACHE)
    except CompilerMissing as error:
        pytest.skip(str(error))
    cost = measure(emulator, plugin, product, ops=True, timeout_s=120)
    operations = {operation.kind: operation.counts for operation in cost.operations}
    integer = operations["MatMulInteger"]
    # One dot-product instruction multiplies 16 pairs, one float multiply-add 4.
    assert integer.dot_product == (MACS // 16 if board is PI5 else 0)
    assert MACS / 4 <= operations["MatMul"].vector <= 1.1 * MACS / 4
    attributed = sum((operation.counts.total for operation in cost.operations), 0)
    assert 0.8 * cost.counts.total < attributed < 1.2 * cost.counts.total


def test_the_decoder_is_counted_as_it_is_asked(artifacts_dir: Path) -> None:
    found = {
        (subject.file.engine, subject.part): subject.signature
        for subject in subjects(artifacts_dir, PARTS)
        if subject.file.precision == "int8"
    }
    assert found == {
        ("onnx", "encoder"): None,
        ("onnx", "decoder"): None,
        ("onnx", "attend"): None,
        ("tflite", "encoder"): "encode",
        ("tflite", "decoder"): "decode_1x2",
        ("tflite", "prepare"): "prepare",
        ("tflite", "attend"): "attend_1x2",
    }


def test_regions_are_read_in_order() -> None:
    text = "stop 0 1 2 3 4 5\nclock 1 0 1 0 0 0\nclock 1 0 2 0 0 0\nstop 0 0 5 0 0 0\n"
    plain, traced = read_regions(text)
    assert plain == [Counts(1, 2, 3, 4, 5)]
    assert [[counts.vector for counts in region] for region in traced] == [[1, 2, 5]]


def test_attribution_finds_where_the_operations_begin() -> None:
    # Two readings of the run itself, then two operations of 100 and 40 with 1 between, then the end of the run.
    snapshots = [Counts(vector=total) for total in (5, 9, 10, 110, 111, 151, 160)]
    events = [
        {"name": "first", "type": "Conv", "elapsed": 9, "begin": 0, "end": 1},
        {"name": "second", "type": "Add", "elapsed": 5, "begin": 2, "end": 3},
    ]
    found = attribute(events, snapshots)
    assert [(operation.name, operation.counts.vector) for operation in found] == [("first", 100), ("second", 40)]


def test_attribution_is_not_led_astray_by_work_between_the_operations() -> None:
    # Two parts of a graph: between them an engine copies tensors, which takes more than a cheap operation does. One
    # reading earlier the operations would have more instructions in all.
    kinds, costs, times = ("Conv", "Reshape", "Pad", "Add"), (700, 1, 900, 8), (90, 1, 3, 2)
    before, between, after = 100, 30, 5
    steps = [before, *costs[:2], between, *costs[2:], after]
    snapshots = [Counts(vector=sum(steps[:index])) for index in range(len(steps) + 1)]
    events = [
        {"name": kind, "type": kind, "elapsed": time, "begin": begin, "end": begin + 1}
        for kind, time, begin in zip(kinds, times, (0, 1, 3, 4), strict=True)
    ]
    found = {operation.kind: operation.counts.vector for operation in attribute(events, snapshots)}
    assert found == dict(zip(kinds, costs, strict=True))


def test_attribution_refuses_readings_that_do_not_fit() -> None:
    with pytest.raises(MeasureError, match="3 clock readings"):
        attribute([{"name": "x", "type": "Conv", "elapsed": 1, "begin": 0, "end": 9}], [Counts()] * 3)


def test_readings_of_delegate_parts_and_single_operators() -> None:
    # A part of two operations, one of TFLite's own, a part of one: 1 + 2, then 2, then 1 + 1 readings.
    events = [(8, 0, "Convolution", 70), (8, 1, "Add", 4), (2, 7, "GELU", 5), (32, 0, "telemetry", 0), (8, 0, "Pad", 1)]
    spans = [(span["type"], span["elapsed"], span["begin"], span["end"]) for span in clock_spans(events)]
    assert spans == [("Convolution", 70, 0, 1), ("Add", 4, 1, 2), ("GELU", 5, 3, 4), ("Pad", 1, 5, 6)]
