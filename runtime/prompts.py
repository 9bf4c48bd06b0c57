"""From the prompts of a caller to those of the decoder; `assemble` is the one way in.

Arrays, lists, the tensors of `predict_torch`, the command's options and evaluation come through it: the same checks,
the same padding point, the same filled box.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinysam.runtime.errors import PromptError
from tinysam.runtime.geometry import LOW_RES_STRIDE, Frame
from tinysam.runtime.labels import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, PADDING, POSITIVE
from tinysam.runtime.mask_choice import is_ambiguous

Floats = NDArray[np.float32]
Point = tuple[float, float, int]
"""x, y and label (1 on the object, 0 off it)."""
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1."""

ORIGINAL_UNIT, MODEL_UNIT = "in pixels of the original upright image", "in pixels of the model's input"

BOX_LOGIT = 8.0
"""Logit inside a filled box, and its negative outside."""


@dataclass(frozen=True)
class ObjectPrompt:
    """Points and a box that mean one object, in pixels of the original image."""

    points: tuple[Point, ...] = ()
    box: Box | None = None


@dataclass(frozen=True)
class Prompts:
    """P prompts in the model's frame, as the decoder takes them."""

    coords: Floats
    """(P, N, 2) x and y in pixels of the model's input."""
    labels: Floats
    """(P, N), see `tinysam.runtime.labels`."""
    mask_input: Floats | None = None
    """(M, 1, 4 * grid, 4 * grid) logits, M is P or 1; None for no mask."""

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def ambiguous(self) -> NDArray[np.bool_]:
        """(P,) which of them are one click and nothing else."""
        return is_ambiguous(self.labels, self.mask_input is not None)


def assemble(
    frame: Frame,
    side: int,
    point_coords: ArrayLike | None = None,
    point_labels: ArrayLike | None = None,
    boxes: ArrayLike | None = None,
    mask_input: ArrayLike | None = None,
    fill_boxes: bool = False,
    in_model_frame: bool = False,
) -> Prompts:
    """Every prompt comes in here: points, boxes and masks as a caller has them -> what the decoder takes.

    Prompts without points (an empty array, or (P, 0, 2)) are prompts without `point_coords`. Zero prompts, as from a
    detector that found nothing, are no error: boxes (0, 4), points (0, N, 2) or masks (0, 1, side, side).

    Args:
        frame: geometry of the image.
        side: of low-res masks, 4 * grid.
        point_coords: (P, N, 2) x and y, or None.
        point_labels: (P, N), 1 or 0.
        boxes: (P, 4) x0, y0, x1, y1, or None. They are cut off at the image's border.
        mask_input: (P, 1, side, side) logits, or (1, 1, side, side) for all prompts.
        fill_boxes: whether boxes without a mask go in as filled masks as well (the manifest's `box_masks`).
        in_model_frame: whether points and boxes are in pixels of the model's input, not of the original image; such
            points may have the label -1 of a padding point, as in SAM's `predict_torch`.

    Raises:
        PromptError: no prompt, or shapes or values make no sense; the message names the first wrong one.
    """
    size, unit = (frame.input_size, MODEL_UNIT) if in_model_frame else (frame.original_size, ORIGINAL_UNIT)
    given = [
        None if values is None else _numbers(name, values)
        for name, values in (("point_coords", point_coords), ("point_labels", point_labels), ("box", boxes))
    ]
    if in_model_frame:  # rounded as the decoder takes them: what lies on the border may not lie beyond it
        given = [None if values is None else values.astype(np.float32) for values in given]
    coords_given, labels_given, boxes_given = map(_present, given)
    points = None if coords_given is None else check_points(coords_given, labels_given, size, unit)
    if points is None and labels_given is not None:
        raise PromptError("point_labels without point_coords: give both or neither")
    corners = None if boxes_given is None else check_boxes(boxes_given, size, unit)
    mask = None if mask_input is None else check_mask(mask_input, None, side)
    if points is None and corners is None and mask is None:
        raise PromptError("no prompt: give points, a box or a mask")
    if points is None and corners is None:
        count = len(mask) if mask is not None else 0
        coords, labels = np.zeros((count, 1, 2), np.float32), np.full((count, 1), ABSENT, np.float32)
    else:
        corners_and_points, labels = _sparse(points, corners)
        coords = corners_and_points.astype(np.float32) if in_model_frame else frame.to_model(corners_and_points)
    if mask is not None:
        mask = check_mask(mask, len(coords), side)
    elif corners is not None and fill_boxes:
        mask = filled_boxes(coords, labels, side)
    return Prompts(coords, labels, mask)


def _sparse(
    points: tuple[NDArray[np.float64], NDArray[np.float64]] | None, corners: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], Floats]:
    """Points, then box corners, or the padding point that a prompt without a box needs: (P, N, 2) and (P, N)."""
    coords, labels = [], []
    if points is not None:
        coords.append(points[0])
        labels.append(points[1])
    if corners is not None:
        if points is not None and len(points[0]) != len(corners):
            raise PromptError(f"{len(points[0])} prompts of points and {len(corners)} boxes: expected as many of each")
        coords.append(corners.reshape(-1, 2, 2))
        labels.append(np.tile([float(BOX_TOP_LEFT), BOX_BOTTOM_RIGHT], (len(corners), 1)))
    else:
        count = len(coords[0])
        coords.append(np.zeros((count, 1, 2)))
        labels.append(np.full((count, 1), float(PADDING)))
    return np.concatenate(coords, axis=1), np.concatenate(labels, axis=1).astype(np.float32)


def _present(values: NDArray[Any] | None) -> NDArray[Any] | None:
    """None for no points or boxes at all: None, [] or (P, 0, ...); zero prompts, (0, N, ...), stay."""
    if values is None or values.shape == (0,) or (values.ndim > 1 and values.shape[0] > 0 and not values.size):
        return None
    return values


def pad_prompts(
    coords: NDArray[np.float32], labels: NDArray[np.float32], size: int, slots: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """P prompts of N points -> `size` prompts of `slots` points, for a decoder of fixed shape.

    Free slots become absent points and free prompts copies of the last one: neither changes a result.
    """
    count, points = labels.shape
    rows = np.minimum(np.arange(size), count - 1)
    more = ((0, 0), (0, slots - points))
    return (
        np.ascontiguousarray(np.pad(coords, (*more, (0, 0)))[rows]),
        np.ascontiguousarray(np.pad(labels, more, constant_values=ABSENT)[rows]),
    )


def filled_boxes(coords: NDArray[np.float32], labels: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The boxes among prompts as mask prompts: logits by how much of each low-res cell the box covers.

    Args:
        coords: (P, N, 2) x and y in the model frame; each prompt holds one box.
        labels: (P, N).
        side: of the low-res mask.

    Returns:
        (P, 1, side, side), `BOX_LOGIT` where a cell lies inside, minus that where it lies outside.
    """
    low, high = (coords[labels == corner][..., None] for corner in (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT))
    start = np.arange(side, dtype=np.float32) * LOW_RES_STRIDE
    overlap = np.minimum(high, start + LOW_RES_STRIDE) - np.maximum(low, start)
    x, y = (overlap.clip(0, LOW_RES_STRIDE) / LOW_RES_STRIDE).transpose(1, 0, 2)
    filled: NDArray[np.float32] = np.float32(BOX_LOGIT) * (2 * y[:, None, :, None] * x[:, None, None, :] - 1)
    return filled


def check_points(
    coords: ArrayLike, labels: ArrayLike | None, size: tuple[int, int], unit: str = ORIGINAL_UNIT
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(P, N, 2) points inside an image of `size` (height, width), and their (P, N) labels."""
    points = _numbers("point_coords", coords)
    if points.ndim != 3 or points.shape[-1] != 2:
        raise PromptError(f"point_coords has shape {points.shape}, expected (prompts, points, 2)")
    if labels is None:
        raise PromptError("point_coords without point_labels: give a label (1 positive, 0 negative) for every point")
    kinds = _numbers("point_labels", labels)
    if kinds.shape != points.shape[:2]:
        raise PromptError(
            f"point_labels has shape {kinds.shape}, expected {points.shape[:2]}: one label for every point"
        )
    for point, label in zip(points.reshape(-1, 2).tolist(), kinds.ravel().tolist(), strict=True):
        if unit == MODEL_UNIT and label == PADDING:
            continue
        check_point(point, size, unit)
        if label not in (NEGATIVE, POSITIVE):
            raise PromptError(f"point label {label:g}: expected 1 (positive) or 0 (negative)")
    return points, kinds


def check_point(point: Sequence[float], size: tuple[int, int], unit: str = ORIGINAL_UNIT) -> None:
    """PromptError if (x, y) is not a point of an image of `size` (height, width)."""
    height, width = size
    x, y = point
    if not (math.isfinite(x) and math.isfinite(y)):
        raise PromptError(f"point ({x:g}, {y:g}): expected two finite numbers, {unit}")
    if not (0 <= x <= width and 0 <= y <= height):
        raise PromptError(
            f"point ({x:g}, {y:g}) lies outside the image: expected x from 0 to {width} and y from 0 to {height}, "
            f"{unit}"
        )


def check_boxes(boxes: ArrayLike, size: tuple[int, int], unit: str = ORIGINAL_UNIT) -> NDArray[np.float64]:
    """(P, 4) boxes that overlap an image of `size` (height, width), cut off at its border."""
    corners = _numbers("box", boxes)
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise PromptError(f"box has shape {corners.shape}, expected (boxes, 4): x0, y0, x1, y1")
    for box in corners.tolist():
        check_box(box, size, unit)
    height, width = size
    return np.clip(corners, 0, [width, height, width, height])


def check_box(box: Sequence[float], size: tuple[int, int], unit: str = ORIGINAL_UNIT) -> None:
    """PromptError if (x0, y0, x1, y1) is not a box that overlaps an image of `size` (height, width)."""
    height, width = size
    x0, y0, x1, y1 = box
    name = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if not all(map(math.isfinite, box)):
        raise PromptError(f"{name}: expected four finite numbers, {unit}")
    for low, high, low_value, high_value in (("x0", "x1", x0, x1), ("y0", "y1", y0, y1)):
        if high_value <= low_value:
            raise PromptError(f"{name}: {high} must exceed {low}, {unit}")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise PromptError(f"{name} lies outside the image, which is {width} wide and {height} high")


def check_mask(mask: ArrayLike, prompts: int | None, side: int) -> NDArray[np.float32]:
    """(M, 1, side, side) float32 logits; M is `prompts` or 1 (any number if `prompts` is None)."""
    logits = _numbers("mask_input", mask).astype(np.float32)
    expected = f"({'prompts' if prompts is None else prompts} or 1, 1, {side}, {side})"
    if logits.ndim != 4 or logits.shape[1:] != (1, side, side):
        raise PromptError(f"mask_input has shape {logits.shape}, expected {expected}: low_res_masks of an earlier call")
    if prompts is not None and len(logits) not in (1, prompts) and prompts:
        raise PromptError(f"mask_input has shape {logits.shape}, expected {expected}")
    if not np.isfinite(logits).all():
        raise PromptError("mask_input holds NaN or infinity: expected finite logits")
    return logits


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise PromptError(f"{name} is not an array of numbers: {error}") from error
