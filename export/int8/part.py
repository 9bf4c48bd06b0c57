"""One part of a model on its way to INT8: its float graph, equalized, with the ranges of its activations."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from tinysam.calibration.arrays import Floats
from tinysam.calibration.blocks import Block, blocks_of, few_rows, is_named
from tinysam.calibration.equalization import Equalized, equalize
from tinysam.calibration.onnx_graph import Graph
from tinysam.calibration.operations import Engine
from tinysam.calibration.parameters import clipped_weights, replace_onnx
from tinysam.calibration.spread import find_factors, spread
from tinysam.calibration.tensor_ranges import TensorRanges, calibrate
from tinysam.runtime.engines.formats import ONNX


@dataclass(frozen=True)
class Calibration:
    """What INT8 files are made with, and what it was found on."""

    equalized: dict[str, Equalized]
    """By part."""
    factors: dict[str, dict[str, Floats]]
    """By part: what inputs of layers in ONNX files are multiplied by, see `tinysam.calibration.spread`."""
    ranges: dict[str, TensorRanges]
    """By part, of the graphs with these factors."""
    images: dict[str, Any]
    """Description of the image set."""


def float_graph(folder: Path, part: str) -> onnx.ModelProto:
    """The float ONNX graph of `encoder` or `decoder`."""
    return onnx.load(folder / ONNX.file_name(part, "fp32"))


def calibrate_parts(
    folder: Path, feeds_of: dict[str, list[dict[str, Floats]]], description: dict[str, Any], method: str
) -> Calibration:
    """Equalizes float ONNX graphs in `folder`, and finds the ranges of the result.

    Args:
        folder: with the float files.
        feeds_of: part -> inputs of its float ONNX graph.
        description: of the images.
        method: one of `tinysam.calibration.ranges.METHODS`.
    """
    equalized, factors, ranges = {}, {}, {}
    for part, feeds in feeds_of.items():
        source = float_graph(folder, part)
        equalized[part] = equalize(source, feeds)
        graph = replace_onnx(source, equalized[part].values)
        factors[part] = find_factors(graph, feeds)
        ranges[part] = calibrate(spread(graph, factors[part]), feeds, method)
    return Calibration(equalized, factors, ranges, description)


class Part:
    """Encoder or decoder with what INT8 files of every format have in common, computed once.

    Args:
        folder: with the float files.
        name: `encoder` or `decoder`.
        calibration: of these float files.
        target: processor of the ONNX files, `arm` or `x86`.
        patterns: names of the graph's blocks, see `tinysam.calibration.blocks.block_name`.
    """

    def __init__(
        self, folder: Path, name: str, calibration: Calibration, target: str, patterns: tuple[str, ...]
    ) -> None:
        self.folder, self.name, self.target, self.patterns = folder, name, target, patterns
        self.found, self.values = calibration.ranges[name], calibration.equalized[name].values
        self.factors = calibration.factors[name]

    @cached_property
    def source(self) -> onnx.ModelProto:
        """The float graph as it was exported."""
        return float_graph(self.folder, self.name)

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """The float graph that is quantized."""
        return replace_onnx(self.source, self.parameters)

    @cached_property
    def parameters(self) -> dict[str, Floats]:
        """Every parameter that is another than in the float files: equalized, and clipped by the search."""
        equalized = replace_onnx(self.source, self.values)
        return self.values | clipped_weights(equalized, self.found.weight_limits)

    @cached_property
    def blocks(self) -> list[Block]:
        """The graph's blocks."""
        return blocks_of(Graph(self.source), self.found.observations, self.patterns)

    def always_float(self, engine: Engine) -> frozenset[str]:
        """Nodes of the blocks that are float in any case in one engine."""
        always = (node for block in self.blocks if block.always_float for node in block.nodes)
        return self.nodes_of(engine.float_blocks).union(always)

    def dynamic(self, engine: Engine) -> frozenset[str]:
        """Nodes with float inputs and int8 weights in one engine."""
        layers = Graph(self.source).linear_nodes()
        return frozenset(layer.name for layer in layers if is_named(layer.module, engine.dynamic_layers))

    def nodes_of(self, patterns: tuple[str, ...]) -> frozenset[str]:
        """Nodes of the blocks whose name matches one of the patterns."""
        return frozenset(node for block in self.blocks if is_named(block.name, patterns) for node in block.nodes)

    @cached_property
    def stored(self) -> frozenset[str]:
        """Nodes that work on a few tokens: float, with int8 weights."""
        return few_rows(Graph(self.source).linear_nodes(), self.found.observations)
