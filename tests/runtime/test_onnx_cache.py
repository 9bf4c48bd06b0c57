"""Optimized graphs in a cache: the same answers, whatever happens to the folder."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.conftest import picture
from tinysam.runtime import Segmenter
from tinysam.runtime.engines import onnx_cache

ort = pytest.importorskip("onnxruntime")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(onnx_cache.VARIABLE, str(folder))
    return folder


@pytest.fixture
def optimized(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was opened: `file` or `kept`, in order."""
    opened: list[str] = []
    real = ort.InferenceSession

    def open_session(model: str, *arguments: object, **options: object) -> object:
        opened.append("kept" if str(model).endswith(onnx_cache.SUFFIX) else "file")
        return real(model, *arguments, **options)

    monkeypatch.setattr(ort, "InferenceSession", open_session)
    return opened


def masks(artifacts: Path) -> np.ndarray:
    segmenter = Segmenter(artifacts, precision="fp32", threads=1)
    segmenter.set_image(picture(60, 40))
    return segmenter.predict([[30, 20]], [1], return_logits=True).masks


def test_the_second_start_takes_what_the_first_kept(disc_artifacts: Path, cache: Path, optimized: list[str]) -> None:
    first, second = masks(disc_artifacts), masks(disc_artifacts)
    assert optimized == ["file", "file", "kept", "kept"]
    np.testing.assert_array_equal(first, second)
    assert len(list(cache.glob(f"*{onnx_cache.SUFFIX}"))) == len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", [lambda kept: kept[:-1], lambda kept: b"", lambda kept: kept[:9] + b"?" + kept[10:]])
def test_a_damaged_graph_is_made_again(disc_artifacts: Path, cache: Path, optimized: list[str], damage: object) -> None:
    first = masks(disc_artifacts)
    whole = {path: path.read_bytes() for path in cache.iterdir()}
    for path, content in whole.items():
        path.write_bytes(damage(content))  # type: ignore[operator]
    np.testing.assert_array_equal(masks(disc_artifacts), first)
    assert optimized == ["file"] * 4
    assert {path: path.read_bytes() for path in cache.iterdir()} == whole


def test_a_graph_that_the_engine_refuses_is_made_again(disc_artifacts: Path, cache: Path) -> None:
    first = masks(disc_artifacts)
    for path in cache.iterdir():
        path.write_bytes(b"no model")
        key = path.name.split("-")[0]
        path.replace(cache / f"{key}-{onnx_cache.checksum(path)}{onnx_cache.SUFFIX}")
    np.testing.assert_array_equal(masks(disc_artifacts), first)
    assert min(path.stat().st_size for path in cache.iterdir()) > 100


def test_another_version_of_the_engine_has_graphs_of_its_own(
    disc_artifacts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks(disc_artifacts)
    monkeypatch.setattr(ort, "__version__", "99.0")
    masks(disc_artifacts)
    assert len(list(cache.iterdir())) == 4


def test_a_folder_that_cannot_be_written_is_no_error(
    disc_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimized: list[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(onnx_cache.VARIABLE, str(tmp_path / "file" / "below"))
    assert masks(disc_artifacts).any()
    assert set(optimized) == {"file"}


def test_nothing_is_kept_if_that_is_wanted(disc_artifacts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(onnx_cache.VARIABLE, onnx_cache.OFF)
    masks(disc_artifacts)
    assert not cache.exists()


def test_old_graphs_are_removed(disc_artifacts: Path, cache: Path) -> None:
    cache.mkdir()
    for age in range(20):
        path = cache / f"{age}{onnx_cache.SUFFIX}"
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    masks(disc_artifacts)
    names = {path.name for path in cache.iterdir()}
    assert len(names) == onnx_cache.MOST_FILES
    assert f"0{onnx_cache.SUFFIX}" in names
    assert f"19{onnx_cache.SUFFIX}" not in names


def test_the_real_model_answers_the_same_bit_by_bit(real_artifacts: Path, cache: Path) -> None:
    found = []
    for _ in range(2):
        segmenter = Segmenter(real_artifacts, "onnx", "int8", threads=1)
        segmenter.set_image(picture(200, 150))
        found.append(segmenter.predict([[100, 70]], [1]).low_res_masks)
    np.testing.assert_array_equal(*found)
