"""The mean of several weights."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tinysam.distillation import soup


def weights(path: Path, value: float, steps: int, names: tuple[str, ...] = ("weight",)) -> Path:
    save_file({name: np.full((2, 3), value, np.float16) for name in names} | {"steps": np.array(steps)}, path)
    return path


def test_tensors_are_averaged_and_counters_are_the_first_ones(tmp_path):
    files = [weights(tmp_path / f"{i}.safetensors", value, i) for i, value in enumerate((1.0, 2.0, 6.0))]
    assert soup.main([*map(str, files), "--out", str(tmp_path / "soup.safetensors")]) == 0
    found = load_file(tmp_path / "soup.safetensors")
    assert found["weight"].dtype == np.float16
    assert found["weight"].tolist() == [[3.0] * 3] * 2
    assert found["steps"] == 0


def test_the_sum_does_not_overflow_fp16(tmp_path):
    files = [weights(tmp_path / f"{i}.safetensors", 60000, 0) for i in range(2)]
    assert soup.main([*map(str, files), "--out", str(tmp_path / "soup.safetensors")]) == 0
    assert (load_file(tmp_path / "soup.safetensors")["weight"] == np.float16(60000)).all()


@pytest.mark.parametrize("names", [("weight", "bias"), ("other",)])
def test_weights_of_another_model_are_refused(tmp_path, capsys, names):
    files = [weights(tmp_path / "a.safetensors", 1, 0), weights(tmp_path / "b.safetensors", 1, 0, names)]
    assert soup.main([*map(str, files), "--out", str(tmp_path / "soup.safetensors")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "b.safetensors holds other tensors than" in said
    assert not (tmp_path / "soup.safetensors").exists()


def test_a_missing_file_is_named(tmp_path, capsys):
    assert soup.main([str(tmp_path / "no.safetensors"), "--out", str(tmp_path / "soup.safetensors")]) == 1
    assert "no.safetensors: no such file" in capsys.readouterr().err
