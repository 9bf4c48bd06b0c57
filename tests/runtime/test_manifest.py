"""The manifest: what is read is what was written, and whatever is wrong is named."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.conftest import REPOSITORY
from tinysam.runtime import ArtifactError, read_manifest
from tinysam.runtime.manifest import FILE_NAME, manifest_from_dict, verify_file, write_manifest


def documented() -> dict[str, Any]:
    """The example in docs/artifacts.md, with a digest in place of its dots."""
    text = (REPOSITORY / "docs" / "artifacts.md").read_text(encoding="utf-8")
    match = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert match
    example: dict[str, Any] = json.loads(match[1])
    example["files"][0]["sha256"] = "ab" * 32
    return example


def test_documented_example_is_read_as_it_says() -> None:
    manifest = manifest_from_dict(documented())
    assert (manifest.variant, manifest.image_size, manifest.grid) == ("nano", 448, 28)
    assert manifest.mask_tokens == (1, 2, 3)
    assert manifest.find("encoder", "onnx", "fp32").signatures[""].inputs["image"].shape == (1, 3, 448, 448)


def test_written_manifest_reads_back_equal(tmp_path: Path) -> None:
    manifest = manifest_from_dict(documented())
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def change(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.__setitem__(name, value)


def change_file(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["files"][0].__setitem__(name, value)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (change("schema", 2), "schema 2, expected 1"),
        (change("schema", None), "'schema' is missing"),
        (change("schema", True), "'schema' is True"),
        (change("image_size", 450), "multiple of 16"),
        (change("image_size", 10**30), "multiple of 16"),
        (change("grid", 29), "'grid' is 29"),
        (change("mean", [1, 2]), "'mean' has 2 numbers"),
        (change("std", [0, 1, 1]), "'std' is 0"),
        (change("mean", [float("nan"), 1, 1]), "'mean' is nan"),
        (change("mask_tokens", []), "'mask_tokens'"),
        (change("mask_tokens", [1, 1]), "'mask_tokens'"),
        (change("mask_tokens", [4]), "'mask_tokens'"),
        (change("everything", {"points_per_side": 0}), "'points_per_side' is 0"),
        (change("everything", {"pred_iou_thresh": 2}), "'pred_iou_thresh' is 2"),
        (change("files", "encoder"), "'files' is 'encoder', expected list"),
        (change("files", ["encoder"]), "expected an object"),
        (change_file("path", "../../etc/passwd"), "inside the folder"),
        (change_file("path", "a\\b"), "inside the folder"),
        (change_file("sha256", "AB"), "64 lower-case"),
        (change_file("engine", "python"), "expected one of onnx, tflite"),
        (change_file("layout", "HWC"), "expected one of NCHW, NHWC"),
        (change_file("signatures", {}), "'signatures' of encoder.fp32.onnx is empty"),
        (change_file("signatures", {"": {"inputs": {"image": {"shape": [0]}}, "outputs": {}}}), "'shape'"),
    ],
)
def test_wrong_field_is_named(damage: Callable[[dict[str, Any]], None], named: str) -> None:
    data = documented()
    damage(data)
    with pytest.raises(ArtifactError, match=re.escape(named)):
        manifest_from_dict(data)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", "[" * 100_000, '{"schema": 1}'])
def test_damaged_text_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ArtifactError, match=re.escape(str(tmp_path / FILE_NAME))):
        read_manifest(tmp_path)


def test_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make export-int8"):
        read_manifest(tmp_path / "none")


def test_changed_byte_and_changed_size_are_refused(disc_artifacts: Path, tmp_path: Path) -> None:
    file = read_manifest(disc_artifacts).files[0]
    data = bytearray((disc_artifacts / file.path).read_bytes())
    (tmp_path / file.path).write_bytes(data)
    assert verify_file(tmp_path, file) == tmp_path / file.path
    data[len(data) // 2] ^= 1
    (tmp_path / file.path).write_bytes(data)
    with pytest.raises(ArtifactError, match="SHA-256"):
        verify_file(tmp_path, file)
    (tmp_path / file.path).write_bytes(data[:-1])
    with pytest.raises(ArtifactError, match=f"has {len(data) - 1} bytes, the manifest says {len(data)}"):
        verify_file(tmp_path, file)
    (tmp_path / file.path).unlink()
    with pytest.raises(FileNotFoundError, match="missing"):
        verify_file(tmp_path, file)


def test_absent_precision_names_what_there_is() -> None:
    manifest = manifest_from_dict(documented())
    with pytest.raises(ArtifactError, match="it has onnx fp32"):
        manifest.find("encoder", "tflite", "int8")
