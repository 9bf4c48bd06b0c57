"""The artifacts of the real export: what is in the folder, and that every file computes what PyTorch computes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from tinysam.calibration.feeds import image_feed
from tinysam.calibration.images import load_image_set
from tinysam.export import parity, pipeline
from tinysam.export.engine import open_files
from tinysam.export.errors import ParityError
from tinysam.export.int8.files import check_masks
from tinysam.export.reference import Reference, ReferenceCase
from tinysam.models import VARIANTS, load
from tinysam.runtime.engines.formats import FORMATS, ONNX, TFLITE
from tinysam.runtime.manifest import Manifest, read_manifest, verify_file

KINDS = [(engine, precision) for engine in ("onnx", "tflite") for precision in ("fp32", "int8")]


@pytest.fixture(scope="module")
def manifest(artifacts_dir: Path) -> Manifest:
    return read_manifest(artifacts_dir)


@pytest.fixture(scope="module")
def unseen(manifest: Manifest) -> ReferenceCase:
    """PyTorch's answers on a view of a photograph that was not used for the parity check of the export."""
    image = load_image_set(None, 24, long_side=448).images[-1]
    return Reference(load(VARIANTS["nano"]), manifest.mask_tokens).case(image_feed(image, manifest), seed=7)


def test_the_folder_holds_eight_whole_files(artifacts_dir: Path, manifest: Manifest) -> None:
    found = {(file.part, file.engine, file.precision) for file in manifest.files}
    assert found == {(part, *kind) for part in ("encoder", "decoder") for kind in KINDS}
    for file in manifest.files:
        verify_file(artifacts_dir, file)
    rest = {"manifest.json", "report.json", "report.html"}
    assert {path.name for path in artifacts_dir.iterdir()} == rest | {f.path for f in manifest.files}


def test_the_manifest_speaks_of_no_machine(artifacts_dir: Path) -> None:
    text = (artifacts_dir / "manifest.json").read_text()
    assert str(Path.home()) not in text
    assert str(artifacts_dir.parent) not in text
    quantization = json.loads(text)["files"][-1]["quantization"]
    assert quantization["calibration"]["sha256"]
    assert quantization["integer_operations"] or quantization["dynamic_operations"]


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_manifest_names_the_operations_that_int8_tflite_files_have(
    artifacts_dir: Path, manifest: Manifest, part: str
) -> None:
    """As the engine lists them: its types tell integers from int8 weights beside a float activation."""
    interpreter = Interpreter(str(artifacts_dir / TFLITE.file_name(part, "int8")))
    types: dict[str, set[tuple[bool, ...]]] = {}
    for operation in interpreter._get_ops_details():
        taken = (operation["operand_types"] + operation["result_types"])[:2]
        types.setdefault(operation["op_name"], set()).add(tuple(kind is np.int8 for kind in taken))
    linear = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
    dynamic = {name for name in linear & set(types) if (False, True) in types[name]}
    integer = {name for name in (*linear, "GELU", "ADD") if (True, True) in types.get(name, ())}
    facts = manifest.find(part, "tflite", "int8").quantization
    assert facts is not None
    assert (facts["integer_operations"], facts["dynamic_operations"]) == (sorted(integer), sorted(dynamic))
    assert integer | dynamic


def test_the_int8_onnx_decoder_computes_a_mask_prompt_only_if_there_is_one(artifacts_dir: Path) -> None:
    graph = onnx.load(artifacts_dir / ONNX.file_name("decoder", "int8")).graph
    (choice,) = (node for node in graph.node if node.op_type == "If")
    branches = {attribute.name: [node.op_type for node in attribute.g.node] for attribute in choice.attribute}
    assert branches["else_branch"] == ["Identity"]
    assert {"Conv", "InstanceNormalization", "Gelu", "MatMul"} <= set(branches["then_branch"])
    assert "mask_input" not in {name for node in graph.node for name in node.input}


def test_queries_keys_values_and_widening_layers_of_the_first_stage_are_convolutions(artifacts_dir: Path) -> None:
    graph = onnx.load(artifacts_dir / ONNX.file_name("encoder", "int8")).graph
    stored = {tensor.name.removesuffix(".weight.int8"): tensor for tensor in graph.initializer}
    layers = ("attention.q", "attention.k", "attention.v", "attention.proj", "fc1", "fc2")
    kernels = {name: [len(stored[f"stages.{stage}.0.{name}"].dims) for stage in (0, 1)] for name in layers}
    narrowing = ("attention.proj", "fc2")
    assert kernels == {name: [2, 2] if name in narrowing else [4, 2] for name in layers}


def test_the_int8_onnx_encoder_multiplies_pixels(artifacts_dir: Path) -> None:
    graph = onnx.load(artifacts_dir / ONNX.file_name("encoder", "int8")).graph
    assert [node.op_type for node in graph.node if "image" in node.input] == ["Reshape"]
    first = next(node for node in graph.node if node.op_type in ("Conv", "MatMul"))
    assert (first.op_type, first.output[0]) == ("MatMul", "conv2d.flat")


@pytest.mark.parametrize("engine", ["onnx", "tflite"])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_float_files_equal_pytorch(
    artifacts_dir: Path, manifest: Manifest, unseen: ReferenceCase, part: str, engine: str
) -> None:
    cases = (parity.encoder_cases if part == "encoder" else parity.decoder_cases)(FORMATS[engine], [unseen])
    found = parity.check_file(artifacts_dir, manifest.find(part, engine, "fp32"), cases, threads=2)
    assert found["relative_error"] < {"onnx": 1e-4, "tflite": 1e-3}[engine]


@pytest.mark.parametrize("engine", ["onnx", "tflite"])
def test_int8_files_keep_the_masks(artifacts_dir: Path, manifest: Manifest, unseen: ReferenceCase, engine: str) -> None:
    pair = [manifest.find(part, engine, "int8") for part in ("encoder", "decoder")]
    found = check_masks(open_files(artifacts_dir, manifest, pair), [unseen])
    assert found["mask_iou"] > 0.9


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("engine", ["onnx", "tflite"])
def test_int8_files_are_a_third_of_the_float_ones(manifest: Manifest, part: str, engine: str) -> None:
    small, large = (manifest.find(part, engine, precision).size_bytes for precision in ("int8", "fp32"))
    assert small < large / 3


def test_a_file_that_computes_something_else_is_an_error(
    artifacts_dir: Path, manifest: Manifest, unseen: ReferenceCase
) -> None:
    wrong = replace(unseen, embedding=unseen.embedding + 0.01 * np.abs(unseen.embedding).max())
    with pytest.raises(ParityError, match=r"differs from PyTorch by .* tolerance 1e-04; nothing was published"):
        parity.check_file(
            artifacts_dir, manifest.find("encoder", "onnx", "fp32"), parity.encoder_cases(ONNX, [wrong]), 1
        )


def test_int8_masks_that_disagree_are_noticed(artifacts_dir: Path, manifest: Manifest, unseen: ReferenceCase) -> None:
    inverted = tuple({**answer, "low_res_masks": -answer["low_res_masks"]} for answer in unseen.answers)
    pair = [manifest.find(part, "onnx", "int8") for part in ("encoder", "decoder")]
    graphs = open_files(artifacts_dir, manifest, pair)
    assert check_masks(graphs, [replace(unseen, answers=inverted)])["mask_iou"] < 0.1


def test_up_to_date_means_same_fingerprint_and_undamaged_files(artifacts_dir: Path, tmp_path: Path) -> None:
    key = str(read_manifest(artifacts_dir).source["fingerprint"])
    copy = Path(shutil.copytree(artifacts_dir, tmp_path / "copy"))
    assert pipeline.up_to_date(copy, key)
    assert not pipeline.up_to_date(copy, "another")
    file = copy / "decoder.int8.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert not pipeline.up_to_date(copy, key)
    assert not pipeline.up_to_date(tmp_path / "absent", key)
