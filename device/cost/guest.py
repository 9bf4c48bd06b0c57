"""The program that runs on the emulated board: one model, one inference, between two marks for the counter.

Needs numpy, the model's engine and `tinysam.runtime`, by which sessions of ONNX Runtime are opened; started by
`measure.py` as a script. Prints one line of JSON on stdout.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

MARK_OPTION, START, STOP, TRACE = 0x54534D, 1, 2, 3
"""The prctl option and actions of insn_count.c."""
SEED = 0
Floats = np.ndarray[Any, np.dtype[np.float32]]
TYPES = {"tensor(uint8)": np.uint8}
"""NumPy's names of ONNX Runtime's types that are not float32."""
Fill = Callable[[str, tuple[int, ...]], Floats]


def main() -> None:
    """Load the model, run once to warm up, then once between marks (and once more traced with --ops)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--shapes", type=json.loads, default={}, help="JSON: lengths of free axes by their name")
    parser.add_argument("--values", type=json.loads, default={}, help="JSON: inputs that hold one value throughout")
    parser.add_argument("--signature", default=None, help="signature of a TFLite file")
    parser.add_argument("--ops", action="store_true", help="also trace single operations")
    arguments = parser.parse_args()

    def fill(name: str, shape: tuple[int, ...]) -> Floats:
        value = arguments.values.get(name)
        return synthetic(name, shape) if value is None else np.full(shape, value, np.float32)

    if arguments.model.suffix == ".onnx":
        report = _onnx(arguments.model, arguments.shapes, fill, arguments.ops)
    else:
        report = _tflite(arguments.model, arguments.signature, fill, arguments.ops)
    print(json.dumps(report))


def mark(action: int) -> None:
    """Tell the counter; without the plugin the call fails and changes nothing."""
    _LIBC.prctl(MARK_OPTION, action, 0, 0, 0)


_LIBC = ctypes.CDLL(None)


def synthetic(name: str, shape: tuple[int, ...]) -> Floats:
    """Inputs with the range of real ones: the instructions executed hardly depend on the values."""
    random = np.random.default_rng(SEED)
    if name == "point_coords":
        return random.uniform(0, 448, shape).astype(np.float32)
    if name == "point_labels":
        return np.ones(shape, np.float32)
    if name == "has_mask_input":
        return np.zeros(shape, np.float32)
    return random.standard_normal(shape, np.float32)


def as_type(values: Floats, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Inputs of another type: bytes are pixels from 0 to 255."""
    return values if dtype == np.float32 else (np.abs(values) * 64).clip(0, 255).astype(dtype)


def _onnx(model: Path, lengths: dict[str, int], fill: Fill, ops: bool) -> dict[str, Any]:
    import onnxruntime as ort

    from tinysam.runtime.engines.onnx import open_session

    plain = open_session(model, threads=1)
    inputs = {}
    for tensor in plain.get_inputs():
        shape = tuple(lengths.get(axis, 1) if isinstance(axis, str) else axis for axis in tensor.shape)
        inputs[tensor.name] = as_type(fill(tensor.name, shape), np.dtype(TYPES.get(tensor.type, np.float32)))
    plain.run(None, inputs)
    mark(START)
    plain.run(None, inputs)
    mark(STOP)
    report: dict[str, Any] = {"engine": f"onnxruntime {ort.__version__}"}
    if ops:
        del plain
        with tempfile.TemporaryDirectory() as folder:
            traced = open_session(model, threads=1, profile=Path(folder) / "profile")
            traced.run(None, inputs)
            mark(TRACE)
            traced.run(None, inputs)
            mark(STOP)
            events = json.loads(Path(traced.end_profiling()).read_text())
        report["events"] = _last_run_nodes(events)
    return report


def _last_run_nodes(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The operations of the last run in order; the profiler reads the clock before and after each."""
    runs = [index for index, event in enumerate(events) if event["name"] == "model_run"]
    start = runs[-2] + 1 if len(runs) > 1 else 0
    nodes = [event for event in events[start : runs[-1]] if event["name"].endswith("_kernel_time")]
    return [
        {
            "name": event["name"].removesuffix("_kernel_time"),
            "type": event["args"]["op_name"],
            "elapsed": event["dur"],
            "begin": 2 * index,
            "end": 2 * index + 1,
        }
        for index, event in enumerate(sorted(nodes, key=lambda event: float(event["ts"])))
    ]


def _tflite(model: Path, signature: str | None, fill: Fill, ops: bool) -> dict[str, Any]:
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(model), num_threads=1)
    runner = interpreter.get_signature_runner(signature)
    inputs = {
        name: as_type(fill(name, tuple(int(n) for n in detail["shape"])), np.dtype(detail["dtype"]))
        for name, detail in runner.get_input_details().items()
    }
    runner(**inputs)
    mark(START)
    runner(**inputs)
    mark(STOP)
    report: dict[str, Any] = {"engine": f"ai-edge-litert {version('ai-edge-litert')}"}
    if ops:
        del runner, interpreter
        profiler = import_module("guest_litert")  # beside this script on the board
        traced = profiler.ProfiledModel(model, signature, lambda name, size: fill(name, (size,)))
        traced.run()
        report["events"] = traced.profile(lambda: mark(TRACE), lambda: mark(STOP))
    return report


if __name__ == "__main__":
    main()
