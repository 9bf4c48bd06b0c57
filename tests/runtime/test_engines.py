"""Engines: what they refuse, and how they say that one is missing."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime import disc_model
from tinysam.export.tensors import decoder_signatures
from tinysam.runtime import ArtifactError, EngineMissingError, Segmenter
from tinysam.runtime.manifest import FILE_NAME, sealed, sha256_file

IMAGE = np.full((32, 64, 3), 118, np.uint8)


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / FILE_NAME
    data = json.loads(path.read_text())
    change(data)
    path.write_text(sealed(data))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Puts other bytes into a file and makes the manifest agree with them."""
    (folder / name).write_bytes(content)

    def change(data: dict[str, Any]) -> None:
        for file in data["files"]:
            if file["path"] == name:
                file["sha256"], file["size_bytes"] = sha256_file(folder / name), len(content)

    edit(folder, change)


@pytest.mark.parametrize(("engine", "package"), [("onnx", "onnxruntime"), ("tflite", "ai_edge_litert")])
def test_missing_engine_names_its_extra(
    disc_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, package: str
) -> None:
    folder = disc_model.build(tmp_path)

    def rename(data: dict[str, Any]) -> None:
        for file in data["files"]:
            file["engine"] = engine
            if engine == "tflite" and file["part"] == "decoder":
                file["layout"] = "NHWC"
                found = decoder_signatures("tflite", disc_model.SIZE, masks=3)
                file["signatures"] = {name: asdict(signature) for name, signature in found.items()}

    edit(folder, rename)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.interpreter", None)
    monkeypatch.delitem(sys.modules, f"tinysam.runtime.engines.{engine}", raising=False)
    segmenter = Segmenter(folder, engine, "fp32")
    with pytest.raises(EngineMissingError, match=rf"pip install tinysam-edge\[{engine}\]"):
        segmenter.set_image(IMAGE)


def test_changed_byte_in_a_graph_is_refused(tmp_path: Path) -> None:
    folder = disc_model.build(tmp_path)
    path = folder / "encoder.fp32.onnx"
    data = bytearray(path.read_bytes())
    data[50] ^= 4
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged: its SHA-256"):
        Segmenter(folder, precision="fp32").set_image(IMAGE)


def test_file_that_is_no_graph_is_refused_although_its_hash_is_right(tmp_path: Path) -> None:
    folder = disc_model.build(tmp_path)
    replace_file(folder, "encoder.fp32.onnx", b"not a graph")
    with pytest.raises(ArtifactError, match="onnxruntime cannot load it"):
        Segmenter(folder, precision="fp32").set_image(IMAGE)


def test_graph_with_other_tensors_than_the_manifest_is_refused(tmp_path: Path) -> None:
    folder = disc_model.build(tmp_path)
    replace_file(folder, "encoder.fp32.onnx", (folder / "decoder.fp32.onnx").read_bytes())
    with pytest.raises(ArtifactError, match=r"inputs are \['has_mask_input'.*the manifest says \['image'\]"):
        Segmenter(folder, precision="fp32").set_image(IMAGE)
    other = disc_model.build(tmp_path / "other", mask_tokens=(0, 1, 2, 3))
    folder = disc_model.build(tmp_path / "again")
    replace_file(folder, "decoder.fp32.onnx", (other / "decoder.fp32.onnx").read_bytes())
    segmenter = Segmenter(folder, precision="fp32")
    segmenter.set_image(IMAGE)
    with pytest.raises(ArtifactError, match=r"low_res_masks has shape .*4, 16, 16.* the manifest says .*3, 16, 16"):
        segmenter.predict(box=[0, 0, 9, 9])


def _shape(part: str, side: str, tensor: str, shape: list[Any]) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for file in data["files"]:
            if file["part"] == part:
                file["signatures"][""][side][tensor]["shape"] = shape

    return change


@pytest.mark.parametrize(
    "change",
    [
        _shape("encoder", "inputs", "image", [1, 3, 65, 64]),
        _shape("encoder", "outputs", "image_embeddings", [1, 256, 4, 5]),
        _shape("decoder", "outputs", "low_res_masks", ["P", 4, 16, 16]),
        _shape("decoder", "inputs", "point_coords", ["P", "N", 3]),
        lambda data: data.__setitem__("mask_tokens", [0, 1]),
        lambda data: [f["signatures"].__setitem__("more", f["signatures"][""]) for f in data["files"]],
        lambda data: [f["signatures"][""]["inputs"].clear() for f in data["files"]],
        lambda data: [f.__setitem__("layout", "NHWC") for f in data["files"]],
    ],
)
def test_manifest_that_contradicts_the_contract_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    folder = disc_model.build(tmp_path)
    edit(folder, change)
    with pytest.raises(ArtifactError, match="export"):
        Segmenter(folder, precision="fp32")
