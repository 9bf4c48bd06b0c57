"""The tables of the instruction counts."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tinysam.device.cost import cli
from tinysam.device.cost.guard import compare
from tinysam.device.cost.measure import Operation
from tinysam.device.cost.plugin import Counts
from tinysam.device.cost.report import Row, by_kind, operations_table, read_record, table, update_record, write_page


def row(precision: str, counts: Counts, *operations: Operation, cpu: str = "cortex-a76", macs: int = 0) -> Row:
    kinds = by_kind(operations)
    return Row(
        "nano-448", "encoder", "onnx", cpu, precision, "onnxruntime 1.31.1", "0" * 64, counts, macs, operations=kinds
    )


def test_other_precisions_show_their_share_of_the_same_parts_fp32_count() -> None:
    fp32 = row("fp32", Counts(vector=2_000_000))
    int8 = row("int8", Counts(dot_product=300_000, branch=500_000), macs=4_000_000)
    other_board = row("fp32", Counts(vector=9_000_000), cpu="cortex-a72")
    half = row("fp16", Counts(vector=1_100_000))
    lines = table([int8, other_board, half, fp32]).splitlines()
    assert lines[-3].endswith("| fp16 | 1.1 | 0.0 | 1.1 | 0.0 | 0.0 | 0.0 |  |  | **0.550** |")
    assert lines[-1].startswith("| nano-448 | encoder | ONNX Runtime 1.31.1 | cortex-a76 |")
    assert lines[-1].endswith("| int8 | 0.8 | 0.3 | 0.0 | 0.0 | 0.5 | 0.0 | 38% | 200 | **0.400** |")
    assert lines[-2].endswith("| fp32 | 2.0 | 0.0 | 2.0 | 0.0 | 0.0 | 0.0 |  |  |  |")
    assert {line.count("|") for line in lines} == {15}


def test_an_int8_row_without_its_fp32_has_no_ratio() -> None:
    assert table([row("int8", Counts(branch=1))]).endswith("|  |")


def test_operations_are_summed_by_kind_costliest_first() -> None:
    operations = (
        Operation("a", "Add", Counts(vector=1_000_000)),
        Operation("b", "Conv", Counts(vector=3_000_000)),
        Operation("c", "Add", Counts(branch=500_000)),
    )
    found = by_kind(operations)
    assert [(kind, number, counts.total) for kind, (number, counts) in found.items()] == [
        ("Conv", 1, 3_000_000),
        ("Add", 2, 1_500_000),
    ]
    text = operations_table(row("int8", Counts(vector=5_000_000), *operations))
    assert "90.0% of the total" in text


def test_a_record_keeps_rows_that_were_not_measured_again(tmp_path: Path) -> None:
    record = tmp_path / "cost.json"
    fp32 = row("fp32", Counts(vector=2, branch=1), Operation("a", "Add", Counts(vector=1)))
    update_record(record, [fp32, row("int8", Counts(vector=9))])
    update_record(record, [row("int8", Counts(vector=1))])
    assert read_record(record) == [fp32, row("int8", Counts(vector=1))]


def test_a_page_gets_the_tables_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n<!-- figures -->\nold\n<!-- /figures -->\nbetween\n<!-- operations -->\n<!-- /operations -->\n"
    )
    rows = [row("int8", Counts(vector=1_000_000), Operation("a", "Add", Counts(vector=500_000)))]
    write_page(page, rows)
    text = page.read_text()
    assert "old" not in text
    assert text.index("| int8 | 1.0 |") < text.index("between") < text.index("| Add | 1 | 0.5 |")
    assert text.startswith("# Title\n")
    write_page(page, rows)
    assert page.read_text() == text


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n")
    with pytest.raises(ValueError, match="<!-- figures -->"):
        write_page(page, [])
    assert page.read_text() == "# Title\n"


def test_growth_names_the_stage_the_engine_and_the_operations() -> None:
    before = row("int8", Counts(vector=1_000_000), Operation("a", "Add", Counts(vector=400_000)))
    grown = row(
        "int8",
        Counts(vector=1_011_000),
        Operation("a", "Add", Counts(vector=405_000)),
        Operation("b", "Pad", Counts(vector=6_000)),
    )
    (found,) = compare([before, row("fp32", Counts(vector=1))], [replace(grown, version="onnxruntime 9")])
    text = str(found)
    assert text.startswith("nano-448 encoder int8, ONNX Runtime, cortex-a76: 1.0 -> 1.0 million instructions (+1.1%)")
    assert "the record is of onnxruntime 1.31.1, this is onnxruntime 9" in text
    assert text.endswith("by operation: Pad new, Add +1.2%")


def test_a_growth_of_a_percent_is_still_none_and_nothing_to_compare_is_an_error() -> None:
    before = row("int8", Counts(vector=1_000_000))
    assert not compare([before], [row("int8", Counts(vector=1_010_000))])
    assert compare([before], [row("int8", Counts(vector=1_010_001))])
    with pytest.raises(ValueError, match="nothing was counted"):
        compare([before], [])


def test_a_stage_that_the_record_lacks_is_named() -> None:
    same, new = row("int8", Counts(vector=1_000_000)), row("fp16", Counts(vector=9))
    (found,) = compare([same], [same, new])
    assert str(found).startswith("nano-448 encoder fp16, ONNX Runtime, cortex-a76: not in the record")


def test_the_command_compares_with_the_record_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "cost.json"
    update_record(record, [row("int8", Counts(vector=1_000_000))])
    fresh = [row("int8", Counts(vector=1_200_000))]

    def measure_all(options: argparse.Namespace) -> list[Row]:
        update_record(options.out, fresh)
        return fresh

    monkeypatch.setattr(cli, "_measure_all", measure_all)
    assert cli.main(["--check", str(record), "--out", str(record)]) == 1
    assert "encoder int8, ONNX Runtime, cortex-a76: 1.0 -> 1.2 million instructions (+20.0%)" in capsys.readouterr().err
    assert cli.main(["--check", str(record), "--out", str(record)]) == 0
    fresh.append(row("fp32", Counts(vector=9)))
    assert cli.main(["--check", str(record), "--out", str(tmp_path / "other.json")]) == 1
    assert "encoder fp32, ONNX Runtime, cortex-a76: not in the record" in capsys.readouterr().err
    assert cli.main(["--check", str(tmp_path / "none.json")]) == 1
    assert "no counts there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}x",
        "3",
        "null",
        '"text"',
        '{"a": 1}',
        "[1]",
        "[{}]",
        '[{"operations": 3}]',
        "[" * 100_000,
        '[{GOOD, "model": []}]',
        '[{GOOD, "counts": {"vector": "9"}}]',
    ],
)
def test_a_file_that_is_no_record_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    other = tmp_path / "other.json"
    other.write_text(text.replace("GOOD", json.dumps(row("int8", Counts(vector=1)).record())[1:-1]))
    assert cli.main(["--check", str(other)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"tinysam-arm-cost: {other}: no ")
    assert error.count("\n") == 1
