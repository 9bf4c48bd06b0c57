"""The cheaper form of a TFLite encoder computes the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tinysam.calibration.pixel_input import take_pixels_tflite
from tinysam.calibration.tflite_cheap import NORM, Op, make_cheap
from tinysam.calibration.tflite_constants import dequantize_code, to_bytes
from tinysam.models.sam import MEAN, STD


def read(path: Path) -> Any:
    """The float encoder as an object, which takes pixels."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    take_pixels_tflite(model, MEAN, STD, dequantize_code(model))
    return model


def kinds(model: Any) -> list[int]:
    """Operations in order."""
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [codes[operation.opcodeIndex] for operation in model.subgraphs[0].operators]


def encode(model: Any) -> np.ndarray:
    """Embedding of noise with an edge of padding."""
    runner = Interpreter(model_content=to_bytes(model), num_threads=1).get_signature_runner()
    ((name, detail),) = runner.get_input_details().items()
    pixels = np.random.default_rng(0).integers(0, 256, detail["shape"], dtype=np.uint8)
    pixels[..., 3] = 1
    pixels[:, -100:] = 0
    return next(iter(runner(**{name: pixels}).values()))


@pytest.fixture
def source(artifacts_dir: Path) -> Path:
    return artifacts_dir / "encoder.fp32.tflite"


def test_the_embedding_is_the_same_with_fewer_operations(source: Path) -> None:
    plain, cheap = read(source), read(source)
    make_cheap(cheap)
    expected, found = encode(plain), encode(cheap)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert kinds(plain).count(Op.SQUARED_DIFFERENCE) == kinds(cheap).count(Op.SQUARED_DIFFERENCE) > 0
    norms = kinds(plain).count(Op.SQUARED_DIFFERENCE)
    pads = kinds(plain).count(Op.PAD)
    # A norm loses three operations, or two if it has scale and shift as the two of the neck have; a pad gains two.
    assert len(kinds(plain)) - len(kinds(cheap)) == 3 * (norms - 2) + 2 - 2 * pads - 1


def test_maps_are_padded_as_matrices_and_pixels_go_by_signed_bytes(source: Path) -> None:
    model = read(source)
    make_cheap(model)
    (subgraph,) = model.subgraphs
    pads = [op for op, kind in zip(subgraph.operators, kinds(model), strict=True) if kind == Op.PAD]
    assert pads
    assert all(len(subgraph.tensors[i].shape) == 2 for op in pads for i in (op.inputs[0], op.outputs[0]))
    assert kinds(model)[:2] == [Op.QUANTIZE, Op.DEQUANTIZE]


def test_a_norm_whose_parts_are_read_elsewhere_stays(source: Path) -> None:
    model = read(source)
    (subgraph,) = model.subgraphs
    first = kinds(model).index(Op.MEAN)
    scaled = subgraph.operators[first + NORM.index(Op.MUL)].outputs[0]
    subgraph.outputs = np.array([*subgraph.outputs, scaled], np.int32)
    reader = schema.OperatorT()
    reader.opcodeIndex, reader.inputs = subgraph.operators[first + 5].opcodeIndex, np.array([scaled, scaled], np.int32)
    reader.outputs = np.array([scaled], np.int32)
    subgraph.operators.append(reader)
    make_cheap(model)
    start = kinds(model).index(Op.MEAN)
    assert tuple(kinds(model)[start : start + len(NORM)]) == NORM
