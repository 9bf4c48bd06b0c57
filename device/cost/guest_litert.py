"""Operations of a TFLite file as LiteRT and XNNPACK run them, through LiteRT's C interface.

The Python interpreter offers no profiler; the compiled-model interface of the same library does, and runs the same
kernels (their totals agree to 0.1 %, which the report shows). Runs on the emulated board, beside `guest.py`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p
from functools import partial
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np

CPU = 1
LOCK_FOR_WRITING = 1
TENSOR_TYPE_BYTES = 512
"""Room for a LiteRtRankedTensorType, which is passed on unread."""
OPERATOR, DELEGATE_OPERATOR = 2, 8
"""Event types: an operator of TFLite itself, and one inside a delegate."""


class Event(ctypes.Structure):
    """ProfiledEventData of LiteRT 2.x."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("type", c_int),
        ("start_us", c_uint64),
        ("elapsed_us", c_uint64),
        ("memory", c_size_t * 6),
        ("index", c_uint64),
        ("graph", c_uint64),
        ("source", c_int),
    )


class ProfiledModel:
    """A compiled model with its profiler; `run` is one inference of a signature (None: of the first)."""

    def __init__(self, path: Path, signature: str | None, fill: Callable[[str, int], np.ndarray[Any, Any]]) -> None:
        self._library = ctypes.CDLL(str(Path(ai_edge_litert.__file__).parent / "libLiteRt.so"))
        self._environment = self._make("LiteRtCreateEnvironment", 0, None)
        model = self._make("LiteRtCreateModelFromFile", self._environment, str(path).encode())
        options = self._make("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, CPU)
        for name, text in {
            "runtime_options_string": "enable_profiling = true\n",
            "xnnpack": "num_threads = 1\n",
        }.items():
            self._add_options(options, name, text)
        self._model = self._make("LiteRtCreateCompiledModel", self._environment, model, options)
        self._profiler = self._make("LiteRtCompiledModelGetProfiler", self._model)
        self._signature, key = self._find_signature(model, signature)
        self._inputs = self._buffers(key, "Input")
        self._outputs = self._buffers(key, "Output")
        for index, buffer in enumerate(self._inputs):
            address = self._make("LiteRtGetSignatureInputName", key, c_size_t(index))
            name = (ctypes.cast(address, ctypes.c_char_p).value or b"").decode()
            self._write(c_void_p(buffer), partial(fill, name))

    def run(self) -> None:
        """One inference."""
        arguments = (c_size_t(len(self._inputs)), self._inputs, c_size_t(len(self._outputs)), self._outputs)
        self._call("LiteRtRunCompiledModel", self._model, c_size_t(self._signature), *arguments)

    def profile(self, start: Callable[[], None], stop: Callable[[], None]) -> list[dict[str, Any]]:
        """One inference between `start` and `stop`; the operations with the clock readings that enclose each."""
        self._call("LiteRtStartProfiler", self._profiler)
        start()
        self.run()
        stop()
        self._call("LiteRtStopProfiler", self._profiler)
        number = c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, byref(number))
        events = (Event * number.value)()
        self._call("LiteRtGetProfilerEvents", self._profiler, number.value, events)
        return clock_spans([(event.type, event.index, event.tag.decode(), event.elapsed_us) for event in events])

    def _call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._library, name)(*arguments):
            raise RuntimeError(f"{name} gave status {status}")

    def _make(self, name: str, *arguments: Any) -> c_void_p:
        made = c_void_p()
        self._call(name, *arguments, byref(made))
        return made

    def _add_options(self, options: c_void_p, name: str, text: str) -> None:
        libc = ctypes.CDLL(None)
        libc.strdup.restype = c_void_p
        payload = c_void_p(libc.strdup(text.encode()))
        free = ctypes.cast(libc.free, c_void_p)
        self._call(
            "LiteRtAddOpaqueOptions", options, self._make("LiteRtCreateOpaqueOptions", name.encode(), payload, free)
        )

    def _find_signature(self, model: c_void_p, wanted: str | None) -> tuple[int, c_void_p]:
        number = c_size_t()
        self._call("LiteRtGetNumModelSignatures", model, byref(number))
        for index in range(number.value):
            key = self._make("LiteRtGetModelSignature", model, c_size_t(index))
            name = ctypes.cast(self._make("LiteRtGetSignatureKey", key), ctypes.c_char_p).value or b""
            if wanted in (None, name.decode()):
                return index, key
        raise ValueError(f"no signature {wanted!r} in the model")

    def _buffers(self, key: c_void_p, side: str) -> Any:
        number = c_size_t()
        self._call(f"LiteRtGetNumSignature{side}s", key, byref(number))
        buffers = (c_void_p * number.value)()
        for index in range(number.value):
            tensor = self._make(f"LiteRtGetSignature{side}TensorByIndex", key, c_size_t(index))
            kind = (ctypes.c_uint8 * TENSOR_TYPE_BYTES)()
            self._call("LiteRtGetRankedTensorType", tensor, kind)
            getter = f"LiteRtGetCompiledModel{side}BufferRequirements"
            needs = self._make(getter, self._model, c_size_t(self._signature), c_size_t(index))
            made = self._make("LiteRtCreateManagedTensorBufferFromRequirements", self._environment, kind, needs)
            buffers[index] = made.value
        return buffers

    def _write(self, buffer: c_void_p, values: Callable[[int], np.ndarray[Any, Any]]) -> None:
        size = c_size_t()
        self._call("LiteRtGetTensorBufferPackedSize", buffer, byref(size))
        address = c_void_p()
        self._call("LiteRtLockTensorBuffer", buffer, byref(address), LOCK_FOR_WRITING)
        array = np.ascontiguousarray(values(size.value // 4), np.float32)
        ctypes.memmove(address, array.ctypes.data, size.value)
        self._call("LiteRtUnlockTensorBuffer", buffer)


def clock_spans(events: list[tuple[int, int, str, int]]) -> list[dict[str, Any]]:
    """Which clock readings enclose each operation, numbered from the first operation's own.

    TFLite reads the clock before and after each operator of its own. XNNPACK reads it when a part of the graph
    begins (operation 0 of that part) and after each operation of the part.

    Args:
        events: type, index within its part, tag and microseconds, in the order in which they ran.
    """
    spans: list[dict[str, Any]] = []
    reading = -1
    for kind, index, tag, elapsed in events:
        if kind == OPERATOR or (kind == DELEGATE_OPERATOR and index == 0):
            reading += 1
        if kind in (OPERATOR, DELEGATE_OPERATOR):
            span = {"name": f"{len(spans)}", "type": tag, "elapsed": elapsed, "begin": reading, "end": reading + 1}
            spans.append(span)
            reading += 1
    return spans
