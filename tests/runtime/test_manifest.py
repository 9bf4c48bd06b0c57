"""The manifest: what is read is what was written, and whatever is wrong is named."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.conftest import REPOSITORY
from tinysam.runtime import ArtifactError
from tinysam.runtime.manifest import (
    FILE_NAME,
    manifest_from_dict,
    read_manifest,
    rehash_manifest,
    verify_file,
    write_manifest,
)
from tinysam.runtime.manifest.__main__ import main


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
    assert manifest.mask_tokens == (0, 1, 2, 3)
    assert (manifest.mask_choice, manifest.box_masks) == ("steady", True)
    assert manifest.find("encoder", "onnx", "fp32").signatures[""].inputs["image"].shape == (1, 3, 448, 448)


def test_the_documented_example_has_every_field_that_is_written() -> None:
    written, example = manifest_from_dict(documented()).to_dict(), documented()
    assert set(example) == {*written, "content_sha256"}
    assert set(example["everything"]) == set(written["everything"])
    assert set(example["files"][0]) == set(written["files"][0])


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
        (change("schema", 1), "schema 1, expected 2: export the model again"),
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
        (change("mask_tokens", [1, 2, 3]), "'mask_choice' is 'steady', but 'mask_tokens' [1, 2, 3] lack 0"),
        (change("mask_choice", "worst"), "expected one of single, steady, best, stability"),
        (change("mask_choice", None), "'mask_choice' is missing"),
        (change("cleaning", {"islands": 2, "holes": 0}), "'islands' is 2, expected 0 to 1"),
        (change("cleaning", {"islands": 0}), "'holes' is missing"),
        (change("zoom_in", {"box": 0.5}), "'box' is 0.5, expected 1 to 100"),
        (change("zoom_in", {"mask": "2"}), "'mask' is '2', expected int or float"),
        (change("everything", {"points_per_side": 0}), "'points_per_side' is 0"),
        (change("everything", {"pred_iou_thresh": 2}), "'pred_iou_thresh' is 2"),
        (change("files", "encoder"), "'files' is 'encoder', expected list"),
        (change("files", ["encoder"]), "expected an object"),
        (change_file("path", "../../etc/passwd"), "inside the folder"),
        (change_file("path", "a\\b"), "inside the folder"),
        (change_file("sha256", "AB"), "64 lower-case"),
        (change_file("engine", "python"), "expected one of onnx, tflite"),
        (change_file("input", None), "'input' is missing"),
        (change_file("input", "bytes"), "expected one of normalized, pixels"),
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


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", "[" * 100_000, '{"schema": 2}'])
def test_damaged_text_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ArtifactError, match=re.escape(str(tmp_path / FILE_NAME))):
        read_manifest(tmp_path)


def test_every_changed_byte_is_noticed_until_the_manifest_is_rehashed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_manifest(manifest_from_dict(documented()), tmp_path)
    before = path.read_text()
    for old, new in (
        ('"pred_iou_thresh": 0.3', '"pred_iou_thresh": 0.4'),
        ("123.675", "123.676"),
        (": 448,", ":  448,"),
    ):
        assert before.count(old) >= 1
        path.write_text(before.replace(old, new, 1))
        with pytest.raises(ArtifactError, match=r"was changed after it was written.*--rehash"):
            read_manifest(tmp_path)
    path.write_text(before.replace('"pred_iou_thresh": 0.3', '"pred_iou_thresh": 0.4'))
    assert main([str(tmp_path)]) == 1
    assert "changed after it was written" in capsys.readouterr().err
    assert main([str(tmp_path), "--rehash"]) == 0
    assert read_manifest(tmp_path).everything.pred_iou_thresh == 0.4
    assert read_manifest(tmp_path) == read_manifest(rehash_manifest(tmp_path).parent)


def test_a_senseless_edit_is_not_rehashed(tmp_path: Path) -> None:
    path = write_manifest(manifest_from_dict(documented()), tmp_path)
    path.write_text(path.read_text().replace('"pred_iou_thresh": 0.3', '"pred_iou_thresh": 3'))
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="'pred_iou_thresh' is 3, expected 0 to 1"):
        rehash_manifest(tmp_path)
    assert path.read_bytes() == before


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
