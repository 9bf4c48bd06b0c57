"""What onnx2tf forgets of a tensor whose axes are all equally long, at the operations that do not turn tensors.

onnx2tf notes for every tensor whether it has turned it from channel-first to channel-last: it has if the shape differs
from ONNX's. A square tensor it always takes for turned. It then turns the constants that are added to it, and moves the
axis of its layer norm and of its transpositions. At an input of 256 the decoder has 256 cells of 256 channels, and 16
channels of 16 x 16 cells in the mask prompt. `keep_square_layouts` notes for those what is true.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

TURNED = "before_op_output_shape_trans"
"""onnx2tf's note, one per tensor."""
ALONG = ("Gelu", "LayerNormalization")
"""Operations that leave a map in the layout it came in."""
CORRECTED = (*ALONG, "Add", "Reshape", "Transpose")
"""Operations of our graphs that write square tensors which onnx2tf did not turn; convolutions do turn theirs."""


def is_square(shape: Any) -> bool:
    """Whether all axes but the first of a (P, rows, columns) tensor or a map are equally long."""
    return len(shape) in (3, 4) and len(set(shape[1:])) == 1


def is_turned(node: Any, tensors: dict[str, Any]) -> bool:
    """Whether onnx2tf wrote the square output of a corrected operation channel-last where ONNX's is channel-first."""
    output = node.outputs[0]
    if len(output.shape) == 3:
        return False  # only maps are turned
    if node.op in ALONG:
        return bool(tensors[node.inputs[0].name][TURNED])
    # A map goes channel-last for its layer norm and back, by true transpositions; `layout_hints` takes care of others.
    return not (node.op == "Transpose" and {reader.op for reader in output.outputs} <= set(ALONG))


def corrected(make_node: Callable[..., None]) -> Callable[..., None]:
    """onnx2tf's conversion of one ONNX node, with the right note about a square output."""

    def make(*, graph_node: Any, tf_layers_dict: dict[str, Any], **rest: Any) -> None:
        make_node(graph_node=graph_node, tf_layers_dict=tf_layers_dict, **rest)
        output = graph_node.outputs[0]
        if is_square(output.shape):
            tf_layers_dict[output.name][TURNED] = is_turned(graph_node, tf_layers_dict)

    return make


@contextlib.contextmanager
def keep_square_layouts() -> Iterator[None]:
    """Within it onnx2tf knows the layout of square tensors."""
    with contextlib.ExitStack() as stack:
        for name in CORRECTED:
            module: Any = importlib.import_module(f"onnx2tf.ops.{name}")
            stack.enter_context(mock.patch.object(module, "make_node", corrected(module.make_node)))
        yield
