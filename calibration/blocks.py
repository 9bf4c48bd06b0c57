"""Blocks of a graph: what is quantized or left in float as one, and what its integers save on the device."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.observers import Observation
from tinysam.calibration.onnx_graph import Graph, LinearNode
from tinysam.calibration.operations import FEW_ROWS, FLOAT_BLOCKS

SAVED_PER_MAC = 0.23
"""Instructions that an int8 multiply-accumulate saves on a Cortex-A76 against fp32.

LiteRT's encoder of nano at 448: 1,230 - 518 million instructions less, of which GELU 99, over the 2,652 million
multiply-accumulates of its convolutions and linear layers (`docs/arm-cost.md`).
"""
IMAGE = "image"
"""The encoder's input."""
WORTH = 0.1
"""Millions of instructions below which a block stays float whatever it does to the masks.

The head of the predicted IoU is such a block: as integers it saves 0.08 million instructions per prompt and changes
the chosen mask of up to one prompt in ten.
"""


@dataclass(frozen=True)
class Block:
    """Some linear layers of one part of the model."""

    name: str
    nodes: tuple[str, ...]
    """ONNX names of its linear layers."""
    always_float: bool
    """Whether it takes the photograph, whose whole numbers stay exact, or a few tokens only, or is float for both
    engines."""
    saved: float
    """Millions of instructions per run that it saves on a Cortex-A76 as integers."""

    @property
    def negligible(self) -> bool:
        """Whether it saves next to nothing, see `WORTH`."""
        return self.saved < WORTH


def rows(node: LinearNode, seen: Mapping[str, Observation]) -> float:
    """How many vectors a layer works on in one run; infinitely many if it was not observed."""
    return seen[node.output].size / len(node.weight) if node.output in seen else float("inf")


def few_rows(nodes: Iterable[LinearNode], seen: Mapping[str, Observation]) -> frozenset[str]:
    """Names of the layers that work on a few tokens."""
    return frozenset(node.name for node in nodes if rows(node, seen) < FEW_ROWS)


def macs(node: LinearNode, seen: Mapping[str, Observation]) -> float:
    """Multiply-accumulates of a layer in one run."""
    return seen[node.output].size * node.weight[0].size if node.output in seen else 0.0


def block_name(parameter: str, patterns: tuple[str, ...]) -> str:
    """Path of the block that a weight belongs to; CalibrationError if it belongs to none.

    Args:
        parameter: path of the weight.
        patterns: paths of the graph's blocks, in which `*` stands for any one name.
    """
    path = parameter.split(".")
    for start in (0, 1):  # a module around the graph puts a name of its own in front
        for pattern in patterns:
            names = pattern.split(".")
            head = path[start : start + len(names)]
            if len(head) == len(names) and all(name in ("*", found) for name, found in zip(names, head, strict=True)):
                return ".".join(head)
    raise CalibrationError(f"weight {parameter} belongs to no block: name its module in the edge graph's BLOCKS")


def is_named(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether the name of a block or module matches one of the patterns, in which `*` stands for anything."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def blocks_of(graph: Graph, seen: Mapping[str, Observation], patterns: tuple[str, ...]) -> list[Block]:
    """Blocks in order of execution; weights are named by the path of their module, `patterns` as in `block_name`."""
    members: dict[str, list[LinearNode]] = {}
    for node in graph.linear_nodes():
        members.setdefault(block_name(node.parameter, patterns), []).append(node)
    few = few_rows(graph.linear_nodes(), seen)
    return [
        Block(
            name,
            tuple(node.name for node in nodes),
            any(node.source == IMAGE for node in nodes)
            or all(node.name in few for node in nodes)
            or is_named(name, FLOAT_BLOCKS),
            SAVED_PER_MAC * sum(macs(n, seen) for n in nodes) / 1e6,
        )
        for name, nodes in members.items()
    ]


def all_but(blocks: list[Block], name: str) -> frozenset[str]:
    """Nodes to keep in float so that one block alone is integer."""
    return frozenset(node for block in blocks if block.name != name for node in block.nodes)
