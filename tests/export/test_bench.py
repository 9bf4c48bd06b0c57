"""The table of `make bench`, from figures that are given."""

from pathlib import Path

from tinysam.export.bench import Column, bench_settings, median_times, table


def test_every_candidate_is_a_fraction_of_the_matrix_product_of_its_precision() -> None:
    seconds = {"torch eager": 0.5, "onnx fp32": 0.25, "tflite int8": 0.1}
    text = table({"nano 448 encoder": Column(10.0, seconds, {"fp32": 80.0, "int8": 400.0})})
    lines = text.splitlines()
    assert lines[0] == "| | nano 448 encoder (10.00 GMAC) |"
    assert lines[2:] == [
        "| torch eager | 500.0 ms (1.00 x), 20.0 GMAC/s, 0.25 |",
        "| onnx fp32 | 250.0 ms (2.00 x), 40.0 GMAC/s, 0.50 |",
        "| tflite int8 | 100.0 ms (5.00 x), 100.0 GMAC/s, 0.25 |",
        "| fp32 matrix product | 80.0 GMAC/s |",
        "| int8 matrix product | 400.0 GMAC/s |",
    ]


def test_no_block_of_a_benchmarked_model_stays_float_for_the_sake_of_masks(tmp_path: Path) -> None:
    (tmp_path / "tinysam-random.pth").touch()
    for name in ("nano", "tinysam"):
        settings = bench_settings(name, 448, tmp_path)
        assert settings.precisions == ("fp32", "int8")
        assert settings.max_drop is None  # published whatever is lost, at the first attempt


def test_candidates_take_turns() -> None:
    order: list[str] = []
    times = median_times({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2)
    assert order == ["a", "b"] * 3
    assert set(times) == {"a", "b"}
