"""ONNX Runtime on the CPU."""

from pathlib import Path

import onnxruntime as ort

from tinysam.runtime.engines import Arrays, check_signature, check_tensors, failed, unreadable
from tinysam.runtime.engines.known_bugs import check_onnxruntime
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest import ModelFile

_NO_LOG = 4
"""Fatal errors only: whatever goes wrong is raised as well, and the command prints it in one line."""


class OnnxEngine:
    """One session; ONNX Runtime allows concurrent `run` calls on it."""

    def __init__(self, path: Path, file: ModelFile, threads: int) -> None:
        self._path = path
        if reason := check_onnxruntime(ort.__version__, file.precision):
            raise ArtifactError(f"{path}: {reason}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _NO_LOG
        # Memory plans made ahead hold more at once than the arena does by itself: 331 against 239 MB at 1024.
        options.enable_mem_pattern = False
        if file.part == "encoder":
            # Threads that spin between the operations of a run save a quarter of its time on two idle cores.
            options.add_session_config_entry("session.force_spinning_stop", "1")
        else:
            # On a busy machine they double it, and segment-everything runs the decoder hundreds of times.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no base class below Exception
            raise unreadable(path, "onnxruntime", error) from error
        signature = check_signature(path, file, "")
        check_tensors(path, "input", signature.inputs, {t.name: tuple(t.shape) for t in self._session.get_inputs()})
        check_tensors(path, "output", signature.outputs, {t.name: tuple(t.shape) for t in self._session.get_outputs()})
        self._outputs = list(signature.outputs)
        self._run_options = ort.RunOptions()
        if file.part == "encoder":
            # Its activations are most of a small device's memory and needed once for a photograph. Giving them back
            # after each run costs an eighth of its time; doing without the arena would cost a third and hold more.
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def run(self, signature: str, inputs: Arrays) -> Arrays:
        """See `Engine.run`; the only signature is the unnamed one."""
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, inputs, self._run_options), strict=True))
        except Exception as error:  # see above
            raise failed(self._path, "onnxruntime", error) from error


ENGINE = OnnxEngine
