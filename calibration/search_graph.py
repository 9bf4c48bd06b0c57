"""Runs the search over all layers of one ONNX graph; what was found so far survives an interruption."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.fisher import LayerSamples, Linear, weight_matrices
from tinysam.calibration.onnx_graph import Graph, LinearNode
from tinysam.calibration.qparams import Range
from tinysam.calibration.search import SearchedLayer, search_output, search_readers
from tinysam.calibration.tensor_ranges import TensorRanges


@dataclass(frozen=True)
class Found:
    """The result for one activation and the weights of the layers that read it."""

    low: float
    high: float
    limits: dict[str, list[float]]
    """Weight -> largest value of each output channel that can be represented."""


class SearchCache:
    """Results by name in a json file, replaced at once, so that an interrupted search continues."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Any] = {}
        if path.is_file():
            try:
                self.entries = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                self.entries = {}

    def get(self, name: str) -> Found | None:
        """What was found under that name."""
        return Found(**self.entries[name]) if name in self.entries else None

    def put(self, name: str, found: Found) -> None:
        """Keeps a result."""
        self.entries[name] = vars(found)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.entries), encoding="utf-8")
        partial.replace(self.path)


class GraphSearch:
    """The search for one part of the model.

    Args:
        part: `encoder` or `decoder`.
        graph: its ONNX file.
        module: the PyTorch graph that was exported; its parameters have the names of the file's.
        samples: of `record_fisher`.
        start: ranges to start from.
    """

    def __init__(
        self, part: str, graph: Graph, module: nn.Module, samples: Mapping[str, LayerSamples], start: TensorRanges
    ) -> None:
        self.part, self.start = part, start
        self.modules = dict(module.named_modules())
        self.samples = samples
        self.nodes = [n for n in graph.linear_nodes() if samples.get(f"{part}/{n.parameter}", LayerSamples()).inputs]
        self.makers = {node.output: node for node in self.nodes}

    def layer(self, node: LinearNode) -> SearchedLayer:
        """A layer with its samples."""
        inputs, gradients = self.samples[f"{self.part}/{node.parameter}"].stacked()
        return SearchedLayer.start(weight_matrices(self.module(node)), inputs, gradients)

    def module(self, node: LinearNode) -> Linear:
        """The PyTorch layer of a node."""
        found = self.modules[node.module]
        assert isinstance(found, nn.Linear | nn.Conv2d)
        return found

    @torch.no_grad()
    def tensor(self, name: str) -> Found | None:
        """The result for one activation; None if nothing linear reads or makes it."""
        seen, span = self.start.observations[name], self.start.ranges[name]
        readers = [node for node in self.nodes if node.source == name]
        if readers:
            layers = [self.layer(node) for node in readers]
            span = search_readers(seen, span, layers)
            limits = {n.parameter: la.limits.flatten().tolist() for n, la in zip(readers, layers, strict=True)}
            return Found(span.low, span.high, limits)
        if name in self.makers:
            node = self.makers[name]
            layer, bias = self.layer(node), self.module(node).bias
            groups, outputs, _ = layer.weight.shape
            bias = torch.zeros(groups, outputs) if bias is None else bias.reshape(groups, outputs)
            span = search_output(seen, span, layer, bias)
            return Found(span.low, span.high, {})
        return None

    def run(self, cache: SearchCache) -> Iterator[str]:
        """Searches everything that the cache does not hold; yields each activation when it is done."""
        for name in self.start.ranges:
            key = f"{self.part}/{name}"
            if cache.get(key) is None:
                found = self.tensor(name)
                if found is not None:
                    cache.put(key, found)
            yield name

    def result(self, cache: SearchCache) -> TensorRanges:
        """The start's ranges with everything that was found in their place."""
        ranges = dict(self.start.ranges)
        limits: dict[str, Floats] = {}
        for name in ranges:
            found = cache.get(f"{self.part}/{name}")
            if found is not None:
                ranges[name] = Range(found.low, found.high)
                limits |= {weight: floats(values) for weight, values in found.limits.items()}
        return TensorRanges("search", self.start.observations, ranges, limits)
