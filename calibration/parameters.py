"""New values for the parameters of float files, from which either engine's INT8 file is made.

The ONNX file names its parameters. The converter renames and transposes them but keeps every bit, so that values
identify a parameter in the TFLite file.
"""

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.onnx_graph import Graph


def replace_onnx(model: onnx.ModelProto, values: Mapping[str, Floats]) -> onnx.ModelProto:
    """The graph with these parameters; itself if there are none."""
    if not values:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(floats(values[tensor.name]), tensor.name))
    return changed


BIAS_APART = "decoder.transformer.layers.0.image_to_token.to_cells.weight"
"""A parameter with a bias as its last column. TFLite decoders have both once more, each for itself."""


def pieces(name: str, array: Floats) -> tuple[Floats, ...]:
    """The arrays as which the converter may have stored a parameter, but for the order of their axes."""
    return (array, array[..., :-1], array[..., -1]) if name == BIAS_APART else (array,)


def orders(array: Floats) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Every order of an array's axes, with its bytes in that order."""
    for order in permutations(range(array.ndim)):
        yield order, np.ascontiguousarray(array.transpose(order)).tobytes()


def replace_tflite(model: Any, source: onnx.ModelProto, values: Mapping[str, Floats]) -> None:
    """Gives the same parameters to a TFLite model in place.

    Args:
        model: flatbuffer object of the TFLite file.
        source: graph with the values that the TFLite file was made from.
        values: parameter -> new value.

    Raises:
        CalibrationError: a parameter is not found, or two of them with different new values look the same.
    """
    stored: dict[bytes, list[int]] = {}
    for i, buffer in enumerate(model.buffers):
        if buffer.data is not None and len(buffer.data):
            stored.setdefault(np.asarray(buffer.data, np.uint8).tobytes(), []).append(i)
    new: dict[int, bytes] = {}
    for tensor in source.graph.initializer:
        if tensor.name not in values:
            continue
        before = pieces(tensor.name, numpy_helper.to_array(tensor))
        after = pieces(tensor.name, floats(values[tensor.name]))
        places = [
            (i, np.ascontiguousarray(new_piece.transpose(order)).tobytes())
            for piece, new_piece in zip(before, after, strict=True)
            for order, content in orders(piece)
            for i in stored.get(content, [])
        ]
        if not places:
            raise CalibrationError(f"{tensor.name} is not in the TFLite file; export both again")
        for i, value in places:
            if new.setdefault(i, value) != value:
                raise CalibrationError(f"{tensor.name}: another parameter has the same values")
    for i, value in new.items():
        model.buffers[i].data = np.frombuffer(value, np.uint8)


def clipped_weights(model: onnx.ModelProto, limits: Mapping[str, Floats]) -> dict[str, Floats]:
    """Weights cut off at the limits of their output channels: every quantizer then chooses the scale limit / 127."""
    values = {}
    for node in Graph(model).linear_nodes():
        if node.parameter in limits:
            bound = limits[node.parameter].reshape(-1, *[1] * (node.weight.ndim - 1))
            values[node.parameter] = floats(np.clip(node.weight, -bound, bound))
    return values
