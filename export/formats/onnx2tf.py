"""ONNX to TFLite with named signatures, through onnx2tf.

onnx2tf builds a Keras model and then writes two TFLite files by way of two saved models each. Half of its time goes
there, and the result has no signature. Only the Keras model is taken from it; the signatures of one file, which share
their weights, are converted together here.

onnx2tf keeps images channel-last and recognizes a change between the two layouts by the shapes on both sides. Where a
square map has as many channels as its side is long (128 in the second stage of TinyViT-5M at 1024), the shapes are
equal and it transposes a tensor that is channel-last already, without a warning. Its parameter replacement file, which
`write_hints` writes, corrects that; what no parameter can correct, `tinysam.export.formats.square` does.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import signature as signature_of
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tinysam.export.errors import ExportError
from tinysam.export.formats.square import keep_square_layouts
from tinysam.export.formats.transpositions import straighten

Array = npt.NDArray[np.float32]
TO_LAST, TO_FIRST, STAY = [0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 2, 3]


@dataclass(frozen=True)
class TFLiteSignature:
    """One callable of a TFLite file, made from one ONNX file of fixed shapes."""

    name: str
    onnx: Path
    inputs: Mapping[str, Array]
    """Example inputs with the ONNX file's shapes; onnx2tf compares operations on them."""
    outputs: tuple[str, ...]
    image_like: tuple[str, ...] = ()
    """Inputs that are NCHW in the ONNX file and become NHWC; all others keep their shape."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps TensorFlow's and onnx2tf's log off the terminal; what was said is shown if the conversion fails."""
    said = io.StringIO()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            with contextlib.redirect_stdout(said):
                yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


@contextlib.contextmanager
def same_recursion_limit() -> Iterator[None]:
    """onnx2tf lifts the recursion limit of the whole process: nested input then ends in a crash, not an error."""
    limit = sys.getrecursionlimit()
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def keras_model(signature: TFLiteSignature, folder: Path) -> Any:
    """The Keras model that onnx2tf makes of the signature's ONNX file."""
    from onnx2tf import onnx2tf as converter

    paths = []
    for name, value in signature.inputs.items():
        path = folder / f"{signature.name}-{name}.npy"
        np.save(path, value.transpose(0, 2, 3, 1) if name in signature.image_like else value)
        paths.append([name, str(path)])
    examples = [np.load(path) for name, path in paths if name in signature.image_like]
    # For a graph whose inputs are all images onnx2tf fetches photographs from the network; it gets ours.
    converter.download_test_image_data = lambda: examples[0]
    hints = write_hints(signature.onnx, folder / f"{signature.name}.json")
    return converter.convert(
        input_onnx_file_path=str(signature.onnx),
        output_folder_path=str(folder),
        custom_input_op_name_np_data_path=paths,
        keep_shape_absolutely_input_names=[n for n in signature.inputs if n not in signature.image_like],
        param_replacement_file=str(hints) if hints else "",
        not_use_onnxsim=True,
        disable_strict_mode=True,
        disable_model_save=True,
        non_verbose=True,
        **keras_backend(converter.convert),
    )


def keras_backend(convert: Any) -> dict[str, str]:
    """The option by which onnx2tf 2 returns a Keras model; onnx2tf 1 knows nothing else."""
    return {"tflite_backend": "tf_converter"} if "tflite_backend" in signature_of(convert).parameters else {}


def callable_of(model: Any, signature: TFLiteSignature) -> Any:
    """A TensorFlow function with the signature's input and output names and no variables."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name.split(":")[0]) for t in model.inputs]  # ONNX names

    @tf.function(input_signature=specs)  # type: ignore[untyped-decorator]
    def frozen(*inputs: Any) -> Any:
        return model(list(inputs))  # a list in the order of the ONNX outputs, or one tensor

    function = convert_variables_to_constants_v2(frozen.get_concrete_function())
    by_name = {spec.name: spec for spec in specs}
    missing = set(signature.inputs) - set(by_name)
    if missing:
        raise ExportError(f"{signature.name}: the converter lost the inputs {', '.join(sorted(missing))}")
    order = [spec.name for spec in specs]

    @tf.function(input_signature=[by_name[name] for name in signature.inputs])  # type: ignore[untyped-decorator]
    def call(*inputs: Any) -> dict[str, Any]:
        given = dict(zip(signature.inputs, inputs, strict=True))
        results = function(*(given[name] for name in order))
        return dict(zip(signature.outputs, results, strict=True))

    return call


def to_tflite(signatures: list[TFLiteSignature], path: Path) -> None:
    """Converts every signature and writes one file; equal weights are stored once.

    Raises:
        ExportError: the converter failed, or the file would need Flex operations, which LiteRT does not have.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet(), same_recursion_limit(), keep_square_layouts(), tempfile.TemporaryDirectory() as name:
            content = straighten(convert(signatures, Path(name)))
    except Exception as error:  # the converters raise whatever happens to go wrong inside them
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"{path.name}: conversion to TFLite failed: {reason[-1]}") from error
    path.write_bytes(content)


def convert(signatures: list[TFLiteSignature], folder: Path) -> bytes:
    """The flatbuffer; builtin operations only, so a Flex operation is an error here."""
    import tensorflow as tf

    module = tf.Module()
    calls = {}
    for signature in signatures:
        calls[signature.name] = callable_of(keras_model(signature, folder), signature)
        setattr(module, signature.name, calls[signature.name])
    saved = folder / "saved"
    tf.saved_model.save(module, str(saved), signatures=calls)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=list(calls))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    content: bytes = converter.convert()
    return content


def shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Static shape of every tensor that has one."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values}


def is_ambiguous(shape: list[int]) -> bool:
    """Whether NCHW and NHWC have the same shape."""
    return len(shape) == 4 and shape[1] == shape[2] == shape[3]


def layout_hints(model: onnx.ModelProto) -> dict[str, Any] | None:
    """onnx2tf's parameter replacements for a graph; None if it needs none."""
    known = shapes(model)
    readers = {name: node for node in model.graph.node for name in node.input}
    nothing = onnx.NodeProto()
    operations: list[dict[str, Any]] = []
    for node in model.graph.node:
        if node.op_type != "Transpose" or not is_ambiguous(known.get(node.input[0], [])):
            continue
        permutation, reader = list(node.attribute[0].ints), readers.get(node.output[0], nothing)
        if permutation == TO_FIRST and reader.op_type == "Conv":
            operations.append(
                {"op_name": node.name, "param_target": "attributes", "param_name": "perm", "values": STAY}
            )
        if permutation == TO_LAST and reader.op_type == "Reshape":
            # onnx2tf will turn the map channel-first; turned channel-last before, it stays as it is
            operations.append(
                {
                    "op_name": reader.name,
                    "param_target": "inputs",
                    "param_name": node.output[0],
                    "pre_process_transpose_perm": TO_LAST,
                }
            )
    return {"format_version": 1, "operations": operations} if operations else None


def write_hints(source: Path, destination: Path) -> Path | None:
    """Writes the replacement file of an ONNX file; None if it needs none."""
    hints = layout_hints(onnx.load(source))
    if hints is None:
        return None
    destination.write_text(json.dumps(hints), encoding="utf-8")
    return destination
