"""LiteRT (TensorFlow Lite) on the CPU, with XNNPACK; where it has no wheels (32-bit ARM), its predecessor."""

import threading
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinysam.runtime.engines import check_signature, check_tensors, failed, unreadable
from tinysam.runtime.engines.formats import TFLITE
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest import ModelFile

if TYPE_CHECKING:
    from tinysam.runtime.engines import Arrays

_PACKAGE = TFLITE.check_installed()
Interpreter = import_module(f"{_PACKAGE.module}.interpreter").Interpreter


class TfliteEngine:
    """One interpreter. It has one set of buffers, so calls from several threads wait for each other."""

    def __init__(self, path: Path, file: ModelFile, threads: int) -> None:
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._known = self._interpreter.get_signature_list()
        except Exception as error:  # the interpreter raises ValueError, RuntimeError and others for damaged files
            raise unreadable(path, _PACKAGE.distribution, error) from error
        self._path, self._file = path, file
        self._runners: dict[str, Any] = {}
        self._lock = threading.Lock()

    def run(self, signature: str, inputs: "Arrays") -> "Arrays":
        """See `Engine.run`."""
        with self._lock:
            runner = self._runner(signature)
            try:
                outputs: Arrays = runner(**inputs)
            except Exception as error:  # see above
                raise failed(self._path, _PACKAGE.distribution, error) from error
        return outputs

    def _runner(self, name: str) -> Any:
        """The signature's runner; its tensors get memory when it is first used."""
        if name not in self._runners:
            expected = check_signature(self._path, self._file, name)
            if name not in self._known:
                raise ArtifactError(f"{self._path}: signature {name!r} is missing, it has {sorted(self._known)}")
            try:
                runner = self._interpreter.get_signature_runner(name)
            except Exception as error:  # see above
                raise unreadable(self._path, _PACKAGE.distribution, error) from error
            check_tensors(self._path, "input", expected.inputs, _shapes(runner.get_input_details()))
            check_tensors(self._path, "output", expected.outputs, _shapes(runner.get_output_details()))
            self._runners[name] = runner
        return self._runners[name]


def _shapes(details: dict[str, Any]) -> dict[str, tuple[int | str, ...]]:
    return {name: tuple(map(int, detail["shape"])) for name, detail in details.items()}


ENGINE = TfliteEngine
