"""Masks of segment-everything found again: IoU by hand, and the real files against themselves."""

import json
from pathlib import Path

import numpy as np
import pytest

from tinysam.evaluation.everything_agreement import best_matches, main


def test_best_matches_by_hand() -> None:
    expected = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], bool)
    found = np.array([[1, 1, 1, 0], [0, 0, 0, 1]], bool)
    np.testing.assert_allclose(best_matches(expected, found), [2 / 3, 1 / 2])
    np.testing.assert_array_equal(best_matches(expected, found[:0]), [0, 0])


def test_fp32_files_find_all_of_their_own_masks_again(
    artifacts_dir: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(drawn), "--reference", str(artifacts_dir), str(artifacts_dir), "--limit", "1"]
    record = tmp_path / "shares.json"
    assert main([*options, "--backend", "onnx", "--precision", "fp32", "--json", str(record)]) == 0
    assert json.loads(record.read_text()) == {f"{artifacts_dir} onnx": {"0.8": 1.0, "0.9": 1.0}}
    assert "1 photographs" in capsys.readouterr().out
    assert main([*options[:2], "--reference", str(tmp_path / "absent"), str(artifacts_dir)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
