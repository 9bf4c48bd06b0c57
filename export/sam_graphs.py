"""SAM's standard layout around our encoder and decoder: the same files with more nodes before and after.

Programs that use SAM hand over pixels and points in a frame whose long side is 1024, whatever the model's own input is,
and take masks of the photograph's size. The nodes here translate: pictures and points into the model's frame, prompts
into those it was trained on, low-res masks to the photograph. Names and semantics are those of `SamOnnxModel` in the
package segment-anything 1.0 (one mask for each prompt) and of the encoder with preprocessing of samexporter 0.5.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from tinysam.runtime.geometry import LOW_RES_STRIDE
from tinysam.runtime.labels import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, PADDING
from tinysam.runtime.manifest import Manifest
from tinysam.runtime.mask_choice import STABILITY_OFFSET, offered_masks
from tinysam.runtime.prompts import BOX_LOGIT

FRAME = 1024
"""Long side of the picture that clients of SAM hand over, and the frame of their points."""
CORE = "model/"
"""Prefix of the names inside the wrapped model."""
FIXED_POINT = np.float64(1 << 22)
"""One, in the fixed-point numbers with which Pillow resizes pictures of 8 bits."""
NEVER = -1e9
"""Added to the predicted IoU of masks that are not to be chosen."""


class Wrapping:
    """The nodes around a model's own, in the order in which they run."""

    def __init__(self, core: onnx.ModelProto) -> None:
        self.core = compose.add_prefix(core, CORE)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(
        self, kind: str, *inputs: str | NDArray[Any] | np.generic, out: str | None = None, **attributes: Any
    ) -> str:
        """One more node; arrays among its inputs become constants. The name of its output, `out` if given."""
        name = out or f"{kind.lower()}_{len(self.nodes)}"
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], **attributes))
        return name

    def constant(self, value: NDArray[Any] | np.generic, name: str | None = None) -> str:
        """A constant tensor."""
        name = name or f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def run_core(self) -> None:
        """The model's own nodes come here."""
        self.nodes.extend(self.core.graph.node)

    def model(self, inputs: dict[str, Sequence[Any]], outputs: dict[str, Sequence[Any]]) -> onnx.ModelProto:
        """The whole model with these float32 inputs and outputs, name -> shape."""
        sides = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
            for side in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, "sam", *sides, [*self.core.graph.initializer, *self.constants])
        model = helper.make_model(graph, opset_imports=self.core.opset_import, ir_version=self.core.ir_version)
        onnx.checker.check_model(model, full_check=True)
        return model


def floats(*values: float) -> NDArray[np.float32]:
    """A float32 constant."""
    return np.array(values, np.float32)


def ints(*values: int) -> NDArray[np.int64]:
    """An int64 constant."""
    return np.array(values, np.int64)


def sam_encoder(core: onnx.ModelProto, manifest: Manifest, kind: str) -> onnx.ModelProto:
    """`input_image` float32 (height, width, 3), RGB in 0 to 255 -> `image_embeddings` (1, 256, grid, grid).

    Args:
        core: encoder of an artifact folder, NCHW.
        manifest: of that folder.
        kind: what the encoder takes, see `ModelFile.input`.
    """
    g, size = Wrapping(core), manifest.image_size
    inside = resized(g, g.add("Cast", g.add("Shape", "input_image", start=0, end=2), to=TensorProto.FLOAT), size)
    rows, columns = (as_pillow(g, g.add("Shape", "input_image", start=i, end=i + 1), inside, i) for i in (0, 1))
    picture = g.add("Cast", g.add("Transpose", "input_image", perm=[2, 0, 1]), to=TensorProto.DOUBLE)
    picture = g.add("Round", picture)  # also keeps ONNX Runtime from joining what it cannot run in float64
    picture = whole(g, g.add("MatMul", picture, columns))
    picture = whole(g, g.add("MatMul", rows, picture))
    picture = g.add("Unsqueeze", g.add("Cast", picture, to=TensorProto.FLOAT), ints(0))
    if kind == "normalized":
        mean, std = (floats(*values).reshape(1, 3, 1, 1) for values in (manifest.mean, manifest.std))
        picture = g.add("Div", g.add("Sub", picture, mean), std)
    else:
        one = numpy_helper.from_array(floats(1))
        here = g.add("ConstantOfShape", g.add("Concat", ints(1, 1), inside, axis=0), value=one)
        picture = g.add("Concat", picture, here, axis=1)
    missing = g.add("Sub", ints(size, size), inside)
    image = g.core.graph.input[0]
    g.add(
        "Cast",
        g.add("Pad", picture, g.add("Concat", ints(0, 0, 0, 0, 0, 0), missing, axis=0)),
        to=image.type.tensor_type.elem_type,
    )
    g.nodes[-1].output[0] = image.name
    g.run_core()
    g.add("Identity", f"{CORE}image_embeddings", out="image_embeddings")
    grid = manifest.grid
    return g.model({"input_image": ["height", "width", 3]}, {"image_embeddings": [1, 256, grid, grid]})


def sam_decoder(core: onnx.ModelProto, manifest: Manifest) -> onnx.ModelProto:
    """SAM's decoder for one prompt of N points.

    `image_embeddings` (1, 256, grid, grid), `point_coords` (1, N, 2) x and y in a frame with a long side of 1024,
    `point_labels` (1, N), `mask_input` (1, 1, any, any) logits, `has_mask_input` (1,), `orig_im_size` (2,) height and
    width of the photograph -> `masks` (1, 1, height, width) logits, `iou_predictions` (1, 1), `low_res_masks`
    (1, 1, 4 * grid, 4 * grid) logits.

    Args:
        core: decoder of an artifact folder, NCHW.
        manifest: of that folder.
    """
    g, side = Wrapping(core), manifest.image_size // LOW_RES_STRIDE
    inside = resized(g, "orig_im_size", manifest.image_size)
    add_prompts(g, manifest, inside, side)
    for value in g.core.graph.input:
        if value.name == f"{CORE}iou_threshold":
            g.constant(floats(-np.inf), value.name)
    g.add("Identity", "image_embeddings", out=f"{CORE}image_embeddings")
    g.run_core()
    chosen = choice(g, manifest)
    low_res = g.add("Gather", f"{CORE}low_res_masks", chosen, axis=1, out="low_res_masks")
    g.add("Gather", f"{CORE}iou_predictions", chosen, axis=1, out="iou_predictions")
    masks = resize(g, low_res, ints(1, 1, manifest.image_size, manifest.image_size))
    masks = g.add("Slice", masks, ints(0, 0), inside, ints(2, 3))
    original = g.add("Cast", "orig_im_size", to=TensorProto.INT64)
    resize(g, masks, g.add("Concat", ints(1, 1), original, axis=0), out="masks")
    return g.model(
        {
            "image_embeddings": [1, 256, manifest.grid, manifest.grid],
            "point_coords": [1, "num_points", 2],
            "point_labels": [1, "num_points"],
            "mask_input": [1, 1, "mask_height", "mask_width"],
            "has_mask_input": [1],
            "orig_im_size": [2],
        },
        {
            "masks": [1, 1, "height", "width"],
            "iou_predictions": [1, 1],
            "low_res_masks": [1, 1, side, side],
        },
    )


def resized(g: Wrapping, height_width: str, long_side: int) -> str:
    """Size (height, width), int64, of a picture in a frame; as `tinysam.runtime.geometry.Frame` rounds it."""
    scale = g.add("Div", floats(long_side), g.add("ReduceMax", height_width, keepdims=1))
    scaled = g.add("Floor", g.add("Add", g.add("Mul", height_width, scale), floats(0.5)))
    return g.add("Cast", g.add("Max", scaled, floats(1)), to=TensorProto.INT64)


def as_pillow(g: Wrapping, length: str, inside: str, axis: int) -> str:
    """Weights of Pillow's bilinear resizing: (new height, height) for axis 0, (width, new width) for axis 1.

    They are triangles as wide as an output pixel, in fixed-point numbers with Pillow's 22 bits behind the point, as
    float64, which holds sums of them exactly: the result is Pillow's to the bit. ONNX's own `Resize` with antialiasing
    differs by up to 6 of 255, which moves masks.
    """
    one, half, nothing = (np.float64(value) for value in (1, 0.5, 0))
    old, new = (g.add("Cast", n, to=TensorProto.DOUBLE) for n in (length, g.add("Gather", inside, ints(axis))))
    scale = g.add("Div", old, new)
    x, centre = (g.add("Add", g.add("Range", nothing, g.add("Squeeze", n, ints(0)), one), half) for n in (old, new))
    x = g.add("Unsqueeze", x, ints(axis))
    centre = g.add("Unsqueeze", g.add("Mul", centre, scale), ints(1 - axis))
    distance = g.add("Abs", g.add("Sub", x, centre))
    narrow = g.add("Div", one, g.add("Max", scale, one))
    weights = g.add("Max", g.add("Sub", one, g.add("Mul", distance, narrow)), nothing)
    total = g.add("ReduceSum", weights, ints(1 - axis), keepdims=1)
    weights = g.add("Mul", weights, g.add("Div", one, total))
    return g.add("Floor", g.add("Add", g.add("Mul", weights, FIXED_POINT), half))


def whole(g: Wrapping, sums: str) -> str:
    """Whole numbers from 0 to 255, to which Pillow rounds after each of the two passes of resizing."""
    pixels = g.add("Floor", g.add("Add", g.add("Div", sums, FIXED_POINT), np.float64(0.5)))
    return g.add("Clip", pixels, np.float64(0), np.float64(255))


def resize(g: Wrapping, picture: str, shape: str | NDArray[np.int64], out: str | None = None) -> str:
    """Bilinear, half-pixel centres, no antialiasing: PyTorch's `interpolate`."""
    mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return g.add("Resize", picture, "", "", shape, out=out, **mode)


def add_prompts(g: Wrapping, manifest: Manifest, inside: str, side: int) -> None:
    """Points, labels and mask as the decoder was trained: see `tinysam.runtime.prompts`."""
    in_frame = g.add("Cast", resized(g, "orig_im_size", FRAME), to=TensorProto.FLOAT)
    in_model = g.add("Cast", inside, to=TensorProto.FLOAT)
    ratio, limit = (g.add("Gather", size, ints(1, 0)) for size in (g.add("Div", in_model, in_frame), in_model))
    coords, labels = g.add("Mul", "point_coords", ratio), "point_labels"
    corner = g.add("GreaterOrEqual", labels, floats(BOX_TOP_LEFT))
    clipped = g.add("Max", g.add("Min", coords, limit), floats(0))
    coords = g.add("Where", g.add("Unsqueeze", corner, ints(2)), clipped, coords, out=f"{CORE}point_coords")
    boxed = g.add("ReduceMax", g.add("Cast", corner, to=TensorProto.FLOAT), ints(1), keepdims=1)
    # Clients pad every prompt; the model, like SAM itself, was trained without padding where there is a box.
    padding = g.add("And", g.add("Equal", labels, floats(PADDING)), g.add("Cast", boxed, to=TensorProto.BOOL))
    labels = g.add("Where", padding, floats(ABSENT), labels, out=f"{CORE}point_labels")
    has = g.add("Clip", "has_mask_input", np.float32(0), np.float32(1))
    mask = g.add("Mul", resize(g, "mask_input", ints(1, 1, side, side)), has)
    if manifest.box_masks:
        alone = g.add("Mul", g.add("Squeeze", boxed, ints(1)), g.add("Sub", floats(1), has))
        mask = g.add("Add", mask, g.add("Mul", filled_box(g, coords, labels, side), alone))
        has = g.add("Add", has, alone)
    g.add("Identity", mask, out=f"{CORE}mask_input")
    g.add("Identity", has, out=f"{CORE}has_mask_input")


def filled_box(g: Wrapping, coords: str, labels: str, side: int) -> str:
    """(1, 1, side, side): `tinysam.runtime.prompts.filled_boxes` of the corners among the points."""
    low, high = (
        g.add(
            "ReduceSum",
            g.add("Where", g.add("Unsqueeze", g.add("Equal", labels, floats(label)), ints(2)), coords, floats(0)),
            ints(1),
            keepdims=0,
        )
        for label in (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)
    )
    start = np.arange(side, dtype=np.float32) * LOW_RES_STRIDE
    low, high = (g.add("Unsqueeze", corner, ints(2)) for corner in (low, high))
    overlap = g.add("Sub", g.add("Min", high, start + LOW_RES_STRIDE), g.add("Max", low, start))
    part = g.add("Div", g.add("Clip", overlap, np.float32(0), np.float32(LOW_RES_STRIDE)), floats(LOW_RES_STRIDE))
    x, y = (g.add("Gather", part, ints(axis), axis=1) for axis in (0, 1))  # (1, 1, side)
    area = g.add("Mul", g.add("Unsqueeze", y, ints(3)), g.add("Unsqueeze", x, ints(2)))
    return g.add("Mul", g.add("Sub", g.add("Mul", area, floats(2)), floats(1)), floats(BOX_LOGIT))


def stability(g: Wrapping) -> str:
    """(1, masks): `tinysam.runtime.mask_choice.stability` of the low-res masks."""
    inner, outer = (
        g.add(
            "ReduceSum",
            g.add("Cast", g.add("Greater", f"{CORE}low_res_masks", floats(level)), to=TensorProto.FLOAT),
            ints(2, 3),
            keepdims=0,
        )
        for level in (STABILITY_OFFSET, -STABILITY_OFFSET)
    )
    return g.add("Div", inner, g.add("Max", outer, floats(1)))


def choice(g: Wrapping, manifest: Manifest) -> str:
    """(1,) place of the mask that the prompt gets: `tinysam.runtime.mask_choice.choose_mask`."""
    tokens, rule = manifest.mask_tokens, manifest.mask_choice
    score = f"{CORE}iou_predictions"
    if rule == "stability":
        return g.add("ArgMax", stability(g), axis=1, keepdims=0)
    if rule == "steady":
        score = g.add("Mul", score, g.add("Sqrt", stability(g)))
    offered = offered_masks(rule, tokens)
    added = floats(*(offered.get(place, NEVER) for place in range(len(tokens))))
    best = g.add("ArgMax", g.add("Add", score, added), axis=1, keepdims=0)
    if rule == "best" or 0 not in tokens:
        return best
    points = g.add("Cast", g.add("GreaterOrEqual", "point_labels", floats(0)), to=TensorProto.FLOAT)
    corners = g.add("Cast", g.add("GreaterOrEqual", "point_labels", floats(BOX_TOP_LEFT)), to=TensorProto.FLOAT)
    masks = g.add("Clip", "has_mask_input", np.float32(0), np.float32(1))
    others = g.add("Add", g.add("ReduceSum", corners, ints(1), keepdims=0), g.add("Add", masks, masks))
    count = g.add("Add", g.add("ReduceSum", points, ints(1), keepdims=0), others)
    one_click = g.add("Equal", count, floats(1))
    return g.add("Where", one_click, best, ints(tokens.index(0)))
