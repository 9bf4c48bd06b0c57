"""Static INT8 ONNX graphs in QDQ form: which nodes become integer, and the quantize/dequantize pairs around them.

ONNX Runtime fuses `DequantizeLinear -> op -> QuantizeLinear` into its integer kernels. The rules here follow from what
those kernels can do:

* Conv: integer in, integer out. For ARM linear layers with integer results are convolutions of one pixel, too.
* Gemm: integer in; its output stays float unless integer nodes follow, which saves a pair at every residual.
* MatMul of attention: integer in, float out. Its softmax is float: the integer one is scalar code in ONNX Runtime.
* Concat of such products for integer layers: integer, so that the products are as well.
* GELU between integer nodes: integer. Other GELU, LayerNormalization, Softmax, residual additions: float.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tinysam.calibration.arrays import Floats
from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.gelu import SLOPE, gate_params
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.onnx_rewriter import drop_unread
from tinysam.calibration.qparams import QParams, quantize_weight, weight_scales

WEIGHT_AXIS = {"Conv": 0, "Gemm": 0}
"""Output-channel axis of the weight; Gemm weights are (outputs, inputs) as `nn.Linear` exports them (transB = 1)."""

LARGE_BYTES = 16384
"""Constants of float nodes from this size on are stored as int8, one scale per head."""


@dataclass
class Plan:
    """Decisions for one graph."""

    signed: bool
    """Whether activations are int8 (otherwise uint8)."""
    nodes: set[str] = field(default_factory=set)
    """Names of the nodes that become integer."""
    activations: dict[str, QParams] = field(default_factory=dict)
    """Parameters of every tensor that enters or leaves them as integers."""
    stored: frozenset[str] = frozenset()
    """Names of the float Gemm nodes whose weights are stored as int8."""


class QdqWriter:
    """Rewrites one graph node by node."""

    def __init__(self, model: onnx.ModelProto, plan: Plan) -> None:
        self.plan = plan
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}
        self.made: set[str] = set()  # Q and DQ nodes that several readers share
        self.lookup = Graph(model)
        self.leaving = {  # tensors that leave their node as integers
            node.output[0] for node in self.graph.node if node.name in plan.nodes and self.leaves_as_integer(node)
        }

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        """Adds an initializer once."""
        if name not in self.added:
            self.added[name] = numpy_helper.from_array(array, name)
        return name

    def scale_and_zero(self, tensor: str, params: QParams) -> list[str]:
        """Initializers of a tensor's parameters."""
        kind = np.int8 if params.signed else np.uint8
        return [
            self.constant(f"{tensor}.scale", np.array(params.scale, np.float32)),
            self.constant(f"{tensor}.zero_point", np.array(params.zero_point, kind)),
        ]

    def params(self, tensor: str) -> QParams:
        """Parameters of an activation; CalibrationError if the plan has none."""
        if tensor not in self.plan.activations:
            raise CalibrationError(f"tensor {tensor} has no range: it was not observed")
        return self.plan.activations[tensor]

    def quantized(self, tensor: str) -> str:
        """Name of the integer version of an activation, made on first use."""
        name = f"{tensor}.q"
        if name not in self.made:
            self.nodes.append(
                helper.make_node(
                    "QuantizeLinear", [tensor, *self.scale_and_zero(tensor, self.params(tensor))], [name], name
                )
            )
            self.made.add(name)
        return name

    def dequantized(self, tensor: str, reader: str) -> str:
        """A float view of the integer version, of its own for every reader: fusion needs that."""
        name = f"{tensor}.dq.{reader}"
        inputs = [self.quantized(tensor), *self.scale_and_zero(tensor, self.params(tensor))]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [name], name))
        return name

    def view(self, tensor: str, params: QParams, reader: str) -> str:
        """The integer version of an activation, read with other parameters than it was written with."""
        name = f"{tensor}.view.{reader}"
        inputs = [self.quantized(tensor), *self.scale_and_zero(name, params)]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [name], name))
        return name

    def weight(self, tensor: str, axis: int) -> tuple[str, Floats]:
        """Integer weight with one scale per output channel; its float view and the scales."""
        weight = self.constants[tensor]
        scales = weight_scales(weight, axis)
        name = f"{tensor}.dq"
        if name not in self.made:
            inputs = [
                self.constant(f"{tensor}.int8", quantize_weight(weight, scales, axis)),
                self.constant(f"{tensor}.scale", scales),
                self.constant(f"{tensor}.zero_point", np.zeros(len(scales), np.int8)),
            ]
            self.nodes.append(helper.make_node("DequantizeLinear", inputs, [name], name, axis=axis))
            self.made.add(name)
        return name, scales

    def stored(self, tensor: str, axis: int) -> str:
        """Float view of a constant that is stored as int8.

        ONNX Runtime computes Cast and Mul of constants once, when it loads a graph, but DequantizeLinear in every run.
        """
        values, name = self.constants[tensor], f"{tensor}.stored"
        if name not in self.made:
            scales = weight_scales(values, axis)
            integers = self.constant(f"{tensor}.int8", quantize_weight(values, scales, axis))
            shape = np.ones(values.ndim, np.int64)
            shape[axis] = -1
            factors = self.constant(f"{tensor}.scale", scales.reshape(shape))
            cast = helper.make_node("Cast", [integers], [f"{name}.cast"], f"{name}.cast", to=onnx.TensorProto.FLOAT)
            self.nodes += [cast, helper.make_node("Mul", [cast.output[0], factors], [name], name)]
            self.made.add(name)
        return name

    def bias(self, tensor: str, reader: str, scales: Floats) -> str:
        """int32 bias at the scale of the accumulator."""
        values = np.clip(np.rint(self.constants[tensor] / scales.astype(np.float64)), -(2**31) + 1, 2**31 - 1)
        name = f"{tensor}.dq.{reader}"
        inputs = [
            self.constant(f"{name}.int32", values.astype(np.int32)),
            self.constant(f"{name}.scale", scales.astype(np.float32)),
            self.constant(f"{name}.zero_point", np.zeros(len(scales), np.int32)),
        ]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [name], name, axis=0))
        return name

    def linear(self, node: onnx.NodeProto) -> None:
        """Conv or Gemm with integer activation, weight and bias."""
        source = node.input[0]
        weight, scales = self.weight(node.input[1], WEIGHT_AXIS[node.op_type])
        inputs = [self.dequantized(source, node.name), weight]
        if len(node.input) > 2 and node.input[2]:
            inputs.append(self.bias(node.input[2], node.name, scales * np.float32(self.params(source).scale)))
        self.emit(node, inputs)

    def gelu(self, node: onnx.NodeProto) -> None:
        """GELU as an integer sigmoid and an integer product, see `tinysam.calibration.gelu`."""
        source, gate = node.input[0], f"{node.output[0]}.gate"
        view = self.view(source, self.params(source).stretched(SLOPE), gate)
        self.nodes.append(helper.make_node("Sigmoid", [view], [gate], gate))
        written, read = gate_params(self.plan.signed)
        self.plan.activations[gate] = written
        product = helper.make_node("Mul", [], [node.output[0]], node.name)
        self.emit(product, [self.dequantized(source, node.name), self.view(gate, read, node.name)])

    def attention(self, node: onnx.NodeProto) -> None:
        """Product of two integer activations with a float result.

        Queries, keys and values are integers since their Gemm, and only moved since then. Attention weights come from
        a float softmax.
        """
        inputs = list(node.input)
        if self.lookup.origin(inputs[0]) not in self.leaving:
            self.plan.activations[inputs[0]] = self.unit_params()
            inputs[0] = self.dequantized(inputs[0], node.name)
        self.emit(node, inputs)

    def concat(self, node: onnx.NodeProto) -> None:
        """Products of activations put together as integers: they are rounded with the parameters of the whole."""
        for tensor in node.input:
            self.plan.activations.setdefault(tensor, self.params(node.output[0]))
        self.emit(node, [self.dequantized(tensor, node.name) for tensor in node.input])

    def unit_params(self) -> QParams:
        """Parameters of values between 0 and 1."""
        return QParams(1 / 255, -128 if self.plan.signed else 0, self.plan.signed)

    def emit(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        """Appends an integer node; its output goes through a pair if the plan says so."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(inputs)
        self.nodes.append(copy)

    def float_node(self, node: onnx.NodeProto) -> None:
        """A node that stays float reads float views of integer tensors and of its large constants."""
        inputs = list(node.input)
        for i, tensor in enumerate(node.input):
            if tensor in self.leaving:
                inputs[i] = self.dequantized(tensor, f"{node.name}.{i}")
            elif node.name in self.plan.stored and i == 1:
                inputs[i] = self.stored(tensor, WEIGHT_AXIS[node.op_type])
            elif not self.lookup.is_linear(node) and self.is_large(self.constants.get(tensor)):
                inputs[i] = self.stored(tensor, self.constants[tensor].ndim - 3)
        self.emit(node, inputs)

    @staticmethod
    def is_large(array: npt.NDArray[np.generic] | None) -> bool:
        """Whether this is a constant worth storing as integers: attention biases, weights per head."""
        return array is not None and array.dtype == np.float32 and array.ndim >= 3 and array.nbytes >= LARGE_BYTES

    def write(self) -> onnx.ModelProto:
        """The rewritten model."""
        writers = {
            "Conv": self.linear,
            "Gemm": self.linear,
            "Gelu": self.gelu,
            "MatMul": self.attention,
            "Concat": self.concat,
        }
        for node in self.graph.node:
            if node.name in self.plan.nodes:
                writers[node.op_type](node)
            else:
                self.float_node(node)
        self.finish()
        return self.model

    def leaves_as_integer(self, node: onnx.NodeProto) -> bool:
        """Whether the node's output is quantized: not of a MatMul, nor of a Gemm that feeds float nodes."""
        if node.op_type in ("Conv", "Gelu"):
            return True
        return node.op_type == "Gemm" and self.lookup.feeds_nodes(node.output[0], self.plan.nodes)

    def finish(self) -> None:
        """Replaces nodes and drops initializers that nothing reads any more."""
        outputs = {output.name for output in self.graph.output}
        for tensor in self.leaving & outputs:
            raise CalibrationError(f"graph output {tensor} would be integer: keep its node in float")
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        drop_unread(self.graph)
        self.graph.initializer.extend(self.added.values())
        del self.graph.value_info[:]
        onnx.checker.check_model(self.model)
