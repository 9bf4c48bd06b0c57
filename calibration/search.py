"""TinySAM's search for scales: alternately over weights and activations, by the error that the masks feel.

For each activation and the layers that read it, with X the float and X^ the rounded input (W likewise) and g the
gradient of the task loss by the layer's output (`fisher.py`), the distance

    sum over rows and channels of (g * (X W - X^ W^))^2

is minimized over 100 fractions of the largest value, 0.01 to 1.2, first of every output channel's weights, then of the
activation, up to three times (arXiv:2312.13789, section 3.4). Weights are limited to 1: a wider scale than their
maximum wastes steps, and LiteRT's quantizer takes no such scale. Activations keep zero exact.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tinysam.calibration.observers import Observation
from tinysam.calibration.qparams import Range, activation_qparams

FRACTIONS = torch.linspace(0.01, 1.2, 100)
ROUNDS = 3
LEVELS = 127


@dataclass
class SearchedLayer:
    """A linear layer with its samples and what was found."""

    weight: Tensor
    """(groups, N, K)."""
    inputs: Tensor
    """(groups, R, K)."""
    gradients: Tensor
    """(groups, R, N)."""
    limits: Tensor
    """(groups, N) largest weight that can be represented."""

    @classmethod
    def start(cls, weight: Tensor, inputs: Tensor, gradients: Tensor) -> "SearchedLayer":
        """Nothing clipped yet."""
        return cls(weight, inputs, gradients, weight.abs().amax(-1).clamp_min(1e-12))

    def output(self) -> Tensor:
        """(groups, R, N) of the float layer, without bias."""
        return self.inputs @ self.weight.transpose(1, 2)

    def rounded_weight(self, limits: Tensor) -> Tensor:
        """The weight as int8 with these limits."""
        step = (limits / LEVELS)[..., None]
        return (self.weight / step).round().clamp(-LEVELS, LEVELS) * step

    def distances(self, inputs: Tensor, weight: Tensor, output: Tensor) -> Tensor:
        """(groups, N) distance of each channel."""
        return ((inputs @ weight.transpose(1, 2) - output) * self.gradients).square().sum(1)

    def search_weight(self, inputs: Tensor) -> bool:
        """Best limits of every channel for a rounded input; whether they changed."""
        output, largest = self.output(), self.weight.abs().amax(-1).clamp_min(1e-12)
        found = self.limits
        least = self.distances(inputs, self.rounded_weight(found), output)
        for fraction in FRACTIONS[FRACTIONS <= 1].flip(0):
            limits = largest * fraction
            distance = self.distances(inputs, self.rounded_weight(limits), output)
            better = distance < least
            found, least = torch.where(better, limits, found), torch.where(better, distance, least)
        changed = not torch.equal(found, self.limits)
        self.limits = found
        return changed


def rounded(values: Tensor, span: Range) -> Tensor:
    """Values as 8-bit integers of this range."""
    params = activation_qparams(span, signed=True)
    low, high = params.limits
    steps = (values / params.scale).round() + params.zero_point
    return (steps.clamp(low, high) - params.zero_point) * params.scale


def best_range(seen: Observation, start: Range, distance: Callable[[Range], float]) -> Range:
    """The fraction of the extremes with the least distance; `start` if none is better."""
    best, least = start, distance(start)
    for fraction in FRACTIONS.flip(0).tolist():
        span = Range(seen.low * fraction, seen.high * fraction)
        found = distance(span)
        if found < least:
            best, least = span, found
    return best


def search_readers(seen: Observation, start: Range, layers: list[SearchedLayer]) -> Range:
    """The range of an activation that linear layers read; sets their limits, too."""
    outputs = [layer.output() for layer in layers]

    def distance(span: Range) -> float:
        return sum(
            float(layer.distances(rounded(layer.inputs, span), layer.rounded_weight(layer.limits), output).sum())
            for layer, output in zip(layers, outputs, strict=True)
        )

    span = start
    for _ in range(ROUNDS):
        changed = [layer.search_weight(rounded(layer.inputs, span)) for layer in layers]
        found = best_range(seen, span, distance)
        if found == span and not any(changed):
            break
        span = found
    return span


def search_output(seen: Observation, start: Range, layer: SearchedLayer, bias: Tensor) -> Range:
    """The range of a layer's output that no linear layer reads (a GELU's source, queries, keys, values)."""
    output = layer.output() + bias[:, None]

    def distance(span: Range) -> float:
        return float(((rounded(output, span) - output) * layer.gradients).square().sum())

    return best_range(seen, start, distance)
