"""ONNX Runtime on the CPU."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import onnxruntime as ort

from tinysam.runtime.engines import check_signature, check_tensors, failed, unreadable
from tinysam.runtime.engines.known_bugs import check_onnxruntime
from tinysam.runtime.engines.onnx_cache import Open, cached_session
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest import ModelFile

if TYPE_CHECKING:
    from tinysam.runtime.engines import Arrays

_NO_LOG = 4
"""Fatal errors only: whatever goes wrong is raised as well, and the command prints it in one line."""

# Threads that spin between the operations of a run save a quarter of the encoder's time on two idle cores. On a busy
# machine they double its processor time and triple its time by the clock.
_SPINNING = {"session.intra_op.allow_spinning": "0"}


def open_session(
    model: Path | bytes,
    threads: int,
    entries: Mapping[str, str] = MappingProxyType({}),
    plan_memory: bool = True,
    save_optimized: Path | None = None,
    optimize: bool = True,
    profile: Path | None = None,
    by_priority: bool = False,
) -> ort.InferenceSession:
    """A quiet session on the CPU: the one place where options of sessions are set.

    Args:
        model: file, or a serialized model.
        threads: for the operations of one run.
        entries: further entries of the session's configuration.
        plan_memory: plans of memory made ahead are faster and hold more at once than the arena does by itself.
        save_optimized: where to save the graph as it is optimized for this processor.
        optimize: else the graph is run as it is, because it was optimized before, or to see its own operations.
        profile: beginning of the path of a profile that the session writes.
        by_priority: run nodes in the order of the graph. By default those that end in outputs of their own may come
            last, when all that they read is in memory.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _NO_LOG
    options.enable_mem_pattern = plan_memory
    if save_optimized:
        options.optimized_model_filepath = str(save_optimized)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if by_priority:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    return ort.InferenceSession(
        str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
    )


class OnnxEngine:
    """One session; ONNX Runtime allows concurrent `run` calls on it."""

    def __init__(self, path: Path, file: ModelFile, threads: int, model: bytes | None = None) -> None:
        """See `Engine`; `model`: a graph in place of the one in the file, which is then not read."""
        self._path = path
        if reason := check_onnxruntime(ort.__version__, file.precision):
            raise ArtifactError(f"{path}: {reason}")
        try:
            if model is None:
                self._session = cached_session(path, file.sha256, self._opener(threads))
            else:
                self._session = open_session(model, threads)
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

    @staticmethod
    def _opener(threads: int) -> Open:
        def open_model(model: Path, save: Path | None, is_optimized: bool) -> ort.InferenceSession:
            # At 1024 a plan of memory would hold 331 MB, not 239.
            return open_session(model, threads, _SPINNING, False, save, optimize=not is_optimized)

        return open_model

    def run(self, signature: str, inputs: "Arrays") -> "Arrays":
        """See `Engine.run`; the only signature is the unnamed one."""
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, inputs, self._run_options), strict=True))
        except Exception as error:  # see above
            raise failed(self._path, "onnxruntime", error) from error


ENGINE = OnnxEngine
