"""The tables of the instruction counts."""

from pathlib import Path

import pytest

from tinysam.device.cost.measure import Operation
from tinysam.device.cost.plugin import Counts
from tinysam.device.cost.report import Row, by_kind, operations_table, read_record, table, update_record, write_page


def row(precision: str, counts: Counts, *operations: Operation, cpu: str = "cortex-a76") -> Row:
    kinds = by_kind(operations)
    return Row("nano-448", "encoder", "onnx", cpu, precision, "onnxruntime 1.31.1", "0" * 64, counts, kinds)


def test_int8_rows_show_their_share_of_the_same_files_fp32_count() -> None:
    fp32, int8 = row("fp32", Counts(vector=2_000_000)), row("int8", Counts(dot_product=300_000, branch=500_000))
    other_board = row("fp32", Counts(vector=9_000_000), cpu="cortex-a72")
    lines = table([int8, other_board, fp32]).splitlines()
    assert lines[-1].endswith("| int8 | 0.8 | 0.3 | 0.0 | 0.0 | 0.5 | 0.0 | **0.400** |")
    assert lines[-2].endswith("| fp32 | 2.0 | 0.0 | 2.0 | 0.0 | 0.0 | 0.0 |  |")


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
