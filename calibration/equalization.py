"""Channels rescaled so that eight bits serve all of them, without any change of the function.

Between two layers a channel may be made larger and read smaller by the same factor, wherever nothing but positive
factors passes in between. How a checkpoint happens to scale such channels decides how well a range per tensor fits them
(Nagel et al. 2019, arXiv:1906.04721, section 4.1; Xiao et al. 2022, arXiv:2211.10438). Here the scale is chosen:

1. Observe the float graph: smallest and largest value of every channel of the pairs in `PAIRS`.
2. Shift channels to the middle of their range where attention allows it. A constant added to keys adds the same to all
   scores of a query, which softmax ignores. One added to values passes attention, whose weights sum to 1, and is taken
   off the bias behind.
3. Scale every channel, so that activations span about the same in all of them. Both sides of a pair move along with a
   rescaled checkpoint: checkpoints of one function end at the same network.

GELU, the input of a layer norm and the residual stream let no factor pass, padding with zeros no shift: the layers
beside those are in `UNPAIRED`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from tinysam.calibration.arrays import Floats, floats
from tinysam.calibration.errors import CalibrationError
from tinysam.calibration.observers import observe_channels
from tinysam.calibration.onnx_graph import Graph

FLATNESS = 0.5
"""1 makes activations of all channels span the same; 1/2 shares the differences with the weights that read them.

With 1 a hidden unit that was hardly ever on during calibration has no room left for other photographs.
"""
LARGEST_VALUE = 2.0**100
"""The factor of a channel that carried nothing takes no parameter beyond this: sums of them stay finite in float32."""
DEAD = 1e-30
"""A channel or a column of weights all of whose values are smaller carries nothing."""

Wide = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Channels that one module of an edge graph makes and others read; `*` stands for any one part of a name."""

    makes: str
    """A linear layer, a map per head (`PerHead`) or a layer norm."""
    reads: tuple[str, ...]
    """What reads the channels: the same parts for `*`, and every part where there are more of them."""
    product: bool = False
    """Whether `reads` makes channels, too, and both are multiplied with each other: queries and keys."""
    seen_after: bool = False
    """Whether ranges are those of what `reads` takes in: a ReLU or a sum lies in between."""
    free: bool = False
    """Whether the channels of the last side that makes some may be shifted at will: keys."""
    absorbs: str = ""
    """The bias that takes up a shift of the channels that `makes` makes: values."""


BLOCK, LAYER, FINAL = "stages.*.*.attention", "decoder.transformer.layers.*", "decoder.transformer.final"
HYPER, IOU = "decoder.hypernetworks.*.layers", "decoder.iou_head.layers"
PAIRS = (
    Pair(f"{BLOCK}.q", (f"{BLOCK}.k",), product=True, free=True),
    Pair(f"{BLOCK}.v", (f"{BLOCK}.proj",), absorbs=f"{BLOCK}.proj.bias"),
    Pair("norm1.norm", ("smooth",)),
    *(Pair(f"{stage}.*.depthwise", (f"{stage}.*.project",)) for stage in ("stages", "last_stage")),
    *(Pair(f"{stage}.*.excite.fc1", (f"{stage}.*.excite.fc2",), seen_after=True) for stage in ("stages", "last_stage")),
    Pair(f"{LAYER}.self_attn.q", (f"{LAYER}.self_attn.k",), product=True, free=True),
    Pair(f"{LAYER}.self_attn.v", (f"{LAYER}.self_attn.out",), absorbs=f"{LAYER}.self_attn.out.bias"),
    Pair(f"{LAYER}.token_to_image.q.proj", (f"{LAYER}.token_to_image.to_cells",)),
    Pair(f"{LAYER}.token_to_image.from_cells", (f"{LAYER}.token_to_image.out",), seen_after=True),
    Pair(f"{LAYER}.mlp.lin1", (f"{LAYER}.mlp.lin2",), seen_after=True),
    Pair(f"{LAYER}.image_to_token.k.proj", (f"{LAYER}.image_to_token.to_cells",), free=True),
    Pair(f"{LAYER}.image_to_token.v.proj", (f"{LAYER}.image_to_token.out",), absorbs=f"{LAYER}.image_to_token.bias"),
    Pair(f"{FINAL}.q.proj", (f"{FINAL}.to_cells",)),
    Pair(f"{FINAL}.from_cells", (f"{FINAL}.out",), seen_after=True),
    Pair("decoder.transformer.norm", ("decoder.hypernetworks.*.layers.0", "decoder.iou_head.layers.0")),
    Pair(f"{HYPER}.0", (f"{HYPER}.1",), seen_after=True),
    Pair(f"{HYPER}.1", (f"{HYPER}.2",), seen_after=True),
    Pair(f"{IOU}.0", (f"{IOU}.1",), seen_after=True),
    Pair(f"{IOU}.1", ("decoder.iou_last",), seen_after=True),
)

INTO_GELU = "makes the input of a GELU and reads the output of one, or the residual stream"
UNPAIRED = {
    "patch_embed.*": "reads the photograph or a GELU, and makes the input of a GELU or the residual stream",
    "convolutions.*.*": INTO_GELU,
    "mergings.*.*": INTO_GELU,
    "stages.*.*.local_conv": "reads and makes the residual stream",
    "stages.*.*.fc1": INTO_GELU,
    "stages.*.*.fc2": "reads a GELU and makes the residual stream",
    "stem.*": "reads the photograph or a GELU, and makes the input of a GELU or the residual stream",
    "*.*.depthwise": "reads the residual stream and makes it, where no projection follows at once",
    "*.*.mixer.*": INTO_GELU,
    "fuse3": "reads one of the maps that are added",
    "fuse4": "reads one of the maps that are added",
    "reduce": "reads the residual stream and makes the input of a layer norm",
    "decoder.mask_prompt.*": "reads the mask or a GELU and makes the input of a layer norm",
    "decoder.prompt_tokens.*": "reads the prompt and makes angles or tokens",
    "decoder.upscaling.first": "reads the cells and makes the input of a layer norm",
    "decoder.upscaling.second": INTO_GELU,
}
"""Linear layers that are in no pair, and why."""


@dataclass(frozen=True)
class Equalized:
    """New parameters of one graph, and what they did."""

    values: dict[str, Floats]
    """Parameter -> its new value."""
    rows: tuple[dict[str, Any], ...]
    """For the report, by pair: ranges of the channels before and after."""


Axes = Mapping[str, tuple[int, ...]]
MAKES: Axes = {"Gemm": (0,), "Conv": (0,), "LayerNormalization": (0,), "MatMul": (1, 3)}
READS: Axes = {"Gemm": (1,), "Conv": (1,), "MatMul": (1, 2)}
"""Axes of a weight that count channels, by operation. A MatMul's weight is (1, heads, inputs, outputs)."""


def pattern(name: str) -> re.Pattern[str]:
    """`name` as a regular expression whose groups are what stands for `*`."""
    return re.compile(re.escape(name).replace(r"\*", r"([^.]+)"))


class Network:
    """Parameters of one ONNX graph by module, in double precision."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = Graph(model)
        self.nodes = {
            node.input[1].removesuffix(".weight"): node
            for node in self.graph.nodes
            if node.op_type in MAKES and node.input[1].endswith(".weight")
        }
        self.original = {name: numpy_helper.to_array(tensor) for name, tensor in self.graph.constants.items()}
        self.values: dict[str, Wide] = {}
        contents = Counter(value.tobytes() for value in self.original.values())
        self.shared = {
            name
            for name, value in self.original.items()
            if contents[value.tobytes()] > 1 or len(self.graph.readers.get(name, [])) > 1
        }
        """Parameters with the values of another one, for which converters store one: they stay as they are."""

    def scalable(self, module: str) -> bool:
        """Whether a module's parameters can be scaled: no values but zeros are another parameter's as well."""
        names = (f"{module}.weight", f"{module}.bias")
        return not any(name in self.shared and self.original[name].any() for name in names)

    def value(self, name: str) -> Wide:
        """A parameter as it is now."""
        now: Wide = self.values[name] if name in self.values else self.original[name].astype(np.float64)
        return now

    def matrix(self, module: str, axes: Axes) -> Wide:
        """(channels, rest) of a module's weight."""
        weight, channels = self.value(f"{module}.weight"), axes[self.nodes[module].op_type]
        first = np.moveaxis(weight, channels, range(len(channels)))
        matrix: Wide = first.reshape(int(np.prod(first.shape[: len(channels)])), -1)
        return matrix

    def scale(self, module: str, axes: Axes, factors: Wide) -> None:
        """Multiplies a module's channels, and its bias if it makes them."""
        name, channels = f"{module}.weight", axes[self.nodes[module].op_type]
        weight = self.value(name)
        shape = [side if axis in channels else 1 for axis, side in enumerate(weight.shape)]
        self.values[name] = weight * factors.reshape(shape)
        if axes is MAKES and f"{module}.bias" in self.original:
            self.values[f"{module}.bias"] = self.value(f"{module}.bias") * factors

    def shift(self, module: str, offsets: Wide) -> None:
        """Adds to the channels that a module makes."""
        self.values[f"{module}.bias"] = self.value(f"{module}.bias") + offsets

    def changed(self) -> dict[str, Floats]:
        """Parameters that are not what they were."""
        new = {name: floats(value) for name, value in self.values.items()}
        return {name: value for name, value in new.items() if not np.array_equal(value, self.original[name])}


@dataclass(frozen=True)
class Place:
    """One pair of modules in a graph."""

    pair: Pair
    makes: str
    reads: tuple[str, ...]
    absorbs: str

    def tensors(self, network: Network) -> dict[str, int]:
        """Tensors whose channels are observed, and their axis: of the first side, and of the second for products."""
        first, second = network.nodes[self.makes], network.nodes[self.reads[0]]
        seen, node = (second.input[0], second) if self.pair.seen_after else (first.output[0], first)
        found = {seen: 1 if node.op_type == "Conv" else -1}
        return found | {second.output[0]: -1} if self.pair.product else found


def places(network: Network) -> list[Place]:
    """Where the pairs are in a graph."""
    found = []
    for pair in PAIRS:
        for makes in network.nodes:
            match = pattern(pair.makes).fullmatch(makes)
            if match is None:
                continue
            wanted = [fill(name, match.groups()) for name in pair.reads]
            reads = tuple(name for name in network.nodes if any(pattern(w).fullmatch(name) for w in wanted))
            if reads:  # else equal weights were stored once, under another name
                found.append(Place(pair, makes, reads, fill(pair.absorbs, match.groups())))
    return found


def fill(name: str, parts: Iterable[str]) -> str:
    """A name with these parts for its first `*`."""
    for part in parts:
        name = name.replace("*", part, 1)
    return name


def factors(ranges: Wide, columns: Wide, flatness: float) -> Wide:
    """What to multiply the channels of a pair with.

    Args:
        ranges: (channels,) largest activation of each channel.
        columns: (channels,) largest weight that reads it; for a product the largest activation of the other side.
        flatness: 1 flattens `ranges`, 1/2 both sides alike.

    Returns:
        (channels,) positive factors: rescaled sides get inversely rescaled factors. A channel with one dead side gets
        the factor that makes its other side like those of the other channels; one with two keeps 1.
    """
    seen, read = ranges > DEAD, columns > DEAD
    live = seen & read
    if not live.any():
        return np.ones_like(ranges)
    strength = np.log2(np.where(live, ranges, 1)) + np.log2(np.where(live, columns, 1))
    middle = strength[live].mean()
    target = (1 - flatness) * strength + (flatness - 0.5) * middle  # log2 of the new range
    exponent = np.zeros_like(ranges)
    exponent[live] = target[live] - np.log2(ranges[live])
    exponent[seen & ~read] = target[live].mean() - np.log2(ranges[seen & ~read])
    exponent[read & ~seen] = np.log2(columns[read & ~seen]) - (strength - target)[live].mean()
    found: Wide = np.exp2(exponent)
    return found


def largest(network: Network, module: str) -> Wide:
    """(channels,) largest parameter of each channel that a module makes."""
    found: Wide = np.abs(network.matrix(module, MAKES)).max(1)
    if f"{module}.bias" in network.original:
        found = np.maximum(found, np.abs(network.value(f"{module}.bias")))
    return found


def centre(place: Place, network: Network, seen: list[Wide]) -> list[Wide]:
    """Shifts keys or values to the middle of their range; the ranges afterwards, (2, channels) each."""
    if not (place.pair.free or place.absorbs):
        return seen
    maker = place.reads[0] if place.pair.product else place.makes
    biases = [f"{maker}.bias", *([place.absorbs] if place.absorbs else [])]
    if any(name in network.shared or name not in network.original for name in biases):
        return seen
    side = len(seen) - 1
    middle = seen[side].mean(0)
    network.shift(maker, -middle)
    if place.absorbs:
        reader = place.reads[0]
        # The bias behind a map per head is added once for every head.
        times = network.value(f"{reader}.weight").shape[1] if network.nodes[reader].op_type == "MatMul" else 1
        network.values[place.absorbs] = network.value(place.absorbs) + middle @ network.matrix(reader, READS) / times
    return [*seen[:side], seen[side] - middle]


def equalize_place(place: Place, network: Network, seen: list[Wide], flatness: float) -> dict[str, Any]:
    """Equalizes one pair; the report's row."""
    before = np.abs(seen[0]).max(0)
    seen = centre(place, network, seen)
    if not all(network.scalable(module) for module in (place.makes, *place.reads)):
        after = np.abs(seen[0]).max(0)
        return row(place, before, after)
    ranges = np.abs(seen[0]).max(0)
    if place.pair.product:
        axes, other = MAKES, np.abs(seen[1]).max(0)
        scales = factors(ranges, other, 0.5)
    else:
        axes, other = READS, np.max([np.abs(network.matrix(reader, READS)).max(1) for reader in place.reads], axis=0)
        scales = factors(ranges, other, flatness)
    # A channel that carried nothing may have parameters of any size: ranges do not bound those.
    bound = np.maximum(1, LARGEST_VALUE / np.maximum(largest(network, place.makes), 1 / LARGEST_VALUE))
    scales = np.where(ranges > DEAD, scales, np.minimum(scales, bound))
    for reader in place.reads:
        network.scale(reader, axes, 1 / scales)
    network.scale(place.makes, MAKES, scales)
    return row(place, before, ranges * scales)


def row(place: Place, before: Wide, after: Wide) -> dict[str, Any]:
    """The report's row of a pair."""
    return {
        "pair": f"{place.makes} -> {', '.join(place.reads)}",
        "channels": len(before),
        "ranges_before": spread(before),
        "ranges_after": spread(after),
    }


def spread(ranges: Wide) -> list[float]:
    """Smallest, median and largest range of the channels that are in use."""
    live = ranges[ranges > DEAD]
    return [float(f"{value:.4g}") for value in np.percentile(live, (0, 50, 100))] if live.size else [0.0] * 3


def equalize(model: onnx.ModelProto, feeds: Iterable[dict[str, Floats]], flatness: float = FLATNESS) -> Equalized:
    """Equalizes every pair of a float graph.

    Args:
        model: ONNX graph of `tinysam.export`, encoder or decoder.
        feeds: real inputs.
        flatness: see `factors`.

    Raises:
        CalibrationError: no feeds, or values that are not finite.
    """
    network = Network(model)
    found = places(network)
    wanted = {tensor: axis for place in found for tensor, axis in place.tensors(network).items()}
    seen = observe_channels(model, wanted, feeds)
    # Backwards: how large the columns of a layer are depends on its rows, which the pair behind it scales.
    rows = [
        equalize_place(place, network, [np.stack(seen[t]).astype(np.float64) for t in place.tensors(network)], flatness)
        for place in reversed(found)
    ][::-1]
    values = network.changed()
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise CalibrationError(f"{name}: equalization gives values beyond float32; check the checkpoint")
    return Equalized(values, tuple(rows))
