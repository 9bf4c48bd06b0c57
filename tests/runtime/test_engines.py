"""Engines: what they refuse, and how they say that one is missing."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.runtime import disc_model
from tinysam.runtime import ArtifactError, EngineMissingError, Segmenter
from tinysam.runtime.contract import PREPARE, Sizes, check_contract, signatures
from tinysam.runtime.engines import formats
from tinysam.runtime.engines.formats import FORMATS, TFLITE, FileFormat
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.manifest import FILE_NAME, Manifest, ModelFile, sealed, sha256_file

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
                found = signatures("decoder", TFLITE, Sizes(disc_model.SIZE, masks=3))
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


def test_an_engine_that_is_too_old_is_refused_before_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime 1.18.1 ends the process when numpy 2 is installed."""
    monkeypatch.setattr(formats.Package, "installed_version", lambda package: "1.18.1")
    monkeypatch.delitem(sys.modules, "tinysam.runtime.engines.onnx", raising=False)
    segmenter = Segmenter(disc_model.build(tmp_path), "onnx", "fp32")
    with pytest.raises(EngineMissingError, match=r"onnxruntime 1\.18\.1 is too old .*pip install 'onnxruntime>=1\.23'"):
        segmenter.set_image(IMAGE)
    assert "tinysam.runtime.engines.onnx" not in sys.modules
    monkeypatch.setattr(formats.Package, "installed_version", lambda package: "1.100.0")
    segmenter.set_image(IMAGE)


def test_the_installed_version_is_what_pip_says() -> None:
    for package in (package for form in formats.FORMATS.values() for package in form.packages):
        try:
            expected: str | None = version(package.distribution)
        except PackageNotFoundError:
            expected = None
        assert package.installed_version() == expected


def test_tflite_files_run_on_the_predecessor_of_litert_where_that_is_all_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert TFLITE.package == TFLITE.packages[0]
    older = ModuleType("tflite_runtime")
    older.__spec__ = ModuleSpec("tflite_runtime", None)
    inner = ModuleType("tflite_runtime.interpreter")
    inner.Interpreter = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tflite_runtime", older)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", inner)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.delitem(sys.modules, "tinysam.runtime.engines.tflite", raising=False)
    try:
        assert import_module("tinysam.runtime.engines.tflite").Interpreter is inner.Interpreter
    finally:
        del sys.modules["tinysam.runtime.engines.tflite"]  # not by monkeypatch, which would put it back


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("kind", ["normalized", "pixels"])
def test_what_the_exporter_writes_is_what_the_runtime_accepts(form: FileFormat, kind: str) -> None:
    sizes = Sizes(disc_model.SIZE, 3)
    manifest = Manifest("m", disc_model.SIZE, disc_model.GRID, (0, 0, 0), (1, 1, 1), (1, 2, 3), ())
    for part in ("encoder", "decoder"):
        made = signatures(part, form, sizes, kind)
        file = ModelFile(
            "f", part, "fp32", form.name, "", 0, form.layout, made, input=kind if part == "encoder" else None
        )
        check_contract(manifest, file)
        with pytest.raises(ArtifactError, match="export again"):
            check_contract(replace(manifest, mask_tokens=(1, 2), image_size=128, grid=8), file)


def test_a_decoder_of_an_earlier_export_is_refused_in_one_sentence() -> None:
    made = signatures("decoder", TFLITE, Sizes(disc_model.SIZE, 3))
    del made[PREPARE]
    manifest = Manifest("m", disc_model.SIZE, disc_model.GRID, (0, 0, 0), (1, 1, 1), (1, 2, 3), ())
    with pytest.raises(ArtifactError, match=r"^f: lacks prepare; export the model again$"):
        check_contract(manifest, ModelFile("f", "decoder", "int8", "tflite", "", 0, TFLITE.layout, made))


@pytest.mark.parametrize(
    ("kinds", "precision", "engine"),
    [
        (("onnx int8", "tflite fp16"), "fp16", "tflite"),
        (("onnx int8", "tflite fp16"), None, "onnx"),
        (("onnx int8", "tflite int8", "tflite fp32"), "mixed", "tflite"),
        (("tflite int8", "onnx int8"), "int8", "onnx"),
    ],
)
def test_without_a_backend_the_first_engine_with_that_precision_is_taken(
    tmp_path: Path, kinds: tuple[str, ...], precision: str | None, engine: str
) -> None:
    files = []
    for name, kind in (pair.split() for pair in kinds):
        form = FORMATS[name]
        for part, taken in (("encoder", "normalized"), ("decoder", None)):
            made = signatures(part, form, Sizes(disc_model.SIZE, 3), "normalized")
            files.append(ModelFile(f"{part}.{kind}.{name}", part, kind, name, "", 0, form.layout, made, taken))
    manifest = Manifest("m", disc_model.SIZE, disc_model.GRID, (0, 0, 0), (1, 1, 1), (1, 2, 3), tuple(files))
    assert Graphs(tmp_path, precision=precision, manifest=manifest).backend == engine
    with pytest.raises(ArtifactError, match="precision fp32; it has onnx"):
        Graphs(tmp_path, "onnx", "fp32", manifest=manifest)


class MeanEngine:
    """An engine of a made-up format: the embedding is the image's mean, the masks are the embedding's."""

    def __init__(self, path: Path, file: ModelFile, threads: int) -> None:
        self.file = file

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        value = next(iter(inputs.values())).mean()
        count = len(inputs.get("point_coords", [0]))
        return {
            name: np.full([count if isinstance(n, str) else n for n in spec.shape], value, np.float32)
            for name, spec in self.file.signatures[signature].outputs.items()
        }


def test_an_engine_is_added_by_a_format_and_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mean = FileFormat("mean", "Mean", (formats.Package("numpy", "numpy", (1, 0)),), "mean_driver", "NCHW", "")
    monkeypatch.setitem(FORMATS, "mean", mean)
    driver = ModuleType("mean_driver")
    driver.ENGINE = MeanEngine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mean_driver", driver)
    folder = disc_model.build(tmp_path)
    edit(folder, lambda data: [file.__setitem__("engine", "mean") for file in data["files"]])
    segmenter = Segmenter(folder, "mean", "fp32")
    segmenter.set_image(IMAGE)
    found = segmenter.predict(box=[0, 0, 9, 9])
    assert found.masks.shape == (3, 32, 64)
    np.testing.assert_allclose(found.low_res_masks, segmenter.get_image_embedding().mean(), rtol=1e-5)


ROOMS = ("runtime/engines/", "export/formats/")
"""Where a format's name may stand as a string: everything else asks the objects of these two."""
ELSEWHERE = {
    "export/settings.py": 1,  # the Python package onnx in a list of packages
    "runtime/desk.py": 1,  # likewise
    "models/state_file.py": 1,  # a user's .onnx file that is taken for a checkpoint
    "device/cost/guest.py": 1,  # the script on the emulated board: one function per engine
}


def count_format_names(source: str) -> int:
    """How many strings of a source file are the name or the suffix of a format."""
    names = {*FORMATS, *(form.suffix for form in FORMATS.values())}
    return sum(isinstance(node, ast.Constant) and node.value in names for node in ast.walk(ast.parse(source)))


def test_no_other_module_asks_for_the_name_of_an_engine() -> None:
    root = Path(__file__).parents[2]
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs a checkout of the repository: its list of files")
    modules = [path for path in listed.stdout.split() if not path.startswith(("tests/", *ROOMS))]
    assert len(modules) > 150
    counts = {path: count_format_names((root / path).read_text(encoding="utf-8")) for path in modules}
    assert {path: count for path, count in counts.items() if count} == ELSEWHERE
    assert count_format_names('if engine == "onnx": pass') == 1
