"""What rewriting a signature of a TFLite file takes: new operations, tensors and constants in its flatbuffer object."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema


def kind_of(code: Any) -> int:
    """Of `schema.BuiltinOperator`; older writers fill in one of two fields."""
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def operation_code(model: Any, kind: int, version: int = 1) -> int:
    """Index of an operation code of at least this version, added if there is none."""
    for i, code in enumerate(model.operatorCodes):
        if kind_of(code) == kind and code.version >= version:
            return i
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


class SubgraphWriter:
    """Collects the operations that are to replace those of one signature.

    Args:
        model: flatbuffer object.
        subgraph: one of its own.
    """

    def __init__(self, model: Any, subgraph: Any) -> None:
        self.model, self.subgraph = model, subgraph
        self.operations: list[Any] = []

    def kind(self, operation: Any) -> int:
        """Of `schema.BuiltinOperator`."""
        return kind_of(self.model.operatorCodes[operation.opcodeIndex])

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Lengths of a tensor's axes."""
        return tuple(int(length) for length in self.subgraph.tensors[tensor].shape)

    def integers(self, tensor: int) -> npt.NDArray[np.int32] | None:
        """Values of an int32 constant, None for an activation and other types."""
        stored = self.subgraph.tensors[tensor]
        data = self.model.buffers[stored.buffer].data
        if data is None or stored.type != schema.TensorType.INT32:
            return None
        return np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.int32).reshape(stored.shape)

    def buffer(self, content: npt.NDArray[np.generic]) -> int:
        """Index of a new buffer."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(content.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def new_tensor(
        self, name: bytes, shape: Sequence[int], kind: int, buffer: int = 0, quantization: Any = None
    ) -> int:
        """Index of a new tensor; without a buffer an activation."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, np.array(shape, np.int32), kind
        tensor.buffer, tensor.quantization = buffer, quantization
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def new_constant(self, name: bytes, values: npt.ArrayLike) -> int:
        """Index of a new int32 constant."""
        content = np.asarray(values, np.int32)
        return self.new_tensor(name, content.shape, schema.TensorType.INT32, self.buffer(content))

    def emit(self, kind: int, inputs: Sequence[int], output: int, version: int = 1) -> int:
        """Appends an operation without options; its output."""
        operation = schema.OperatorT()
        operation.opcodeIndex = operation_code(self.model, kind, version)
        operation.inputs, operation.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        self.operations.append(operation)
        return output
