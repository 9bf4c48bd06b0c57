"""Checks prompts and turns them into the decoder's points and labels, see `tinysam.runtime.labels`."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinysam.runtime.errors import PromptError
from tinysam.runtime.geometry import LOW_RES_STRIDE, Frame
from tinysam.runtime.labels import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, PADDING, POSITIVE

BOX_LOGIT = 8.0
"""Logit inside a filled box, and its negative outside."""


def assemble(
    frame: Frame,
    point_coords: ArrayLike | None,
    point_labels: ArrayLike | None,
    boxes: ArrayLike | None,
    without_sparse: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Prompts of the original frame -> (P, N, 2) coordinates in the model frame and (P, N) labels, float32.

    Args:
        frame: geometry of the image.
        point_coords: (P, N, 2) x and y, or None.
        point_labels: (P, N), 1 or 0.
        boxes: (P, 4) x0, y0, x1, y1, or None.
        without_sparse: P if there are neither points nor boxes (a mask is the only prompt).

    Raises:
        PromptError: shapes or values make no sense; the message names the first wrong one.
    """
    coords: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    if point_coords is not None:
        points, kinds = check_points(point_coords, point_labels, frame.original_size)
        coords.append(points)
        labels.append(kinds)
    elif point_labels is not None:
        raise PromptError("point_labels without point_coords: give both or neither")
    if boxes is not None:
        corners = check_boxes(boxes, frame.original_size).reshape(-1, 2, 2)
        coords.append(corners)
        labels.append(np.tile([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], (len(corners), 1)))
    if not coords:
        return np.zeros((without_sparse, 1, 2), np.float32), np.full((without_sparse, 1), ABSENT, np.float32)
    if len({len(part) for part in coords}) > 1:
        raise PromptError(f"{len(coords[0])} prompts of points and {len(coords[1])} boxes: expected as many of each")
    model_coords = frame.to_model(np.concatenate(coords, axis=1))
    model_labels = np.concatenate(labels, axis=1).astype(np.float32)
    if boxes is None:
        model_coords = np.pad(model_coords, ((0, 0), (0, 1), (0, 0)))
        model_labels = np.pad(model_labels, ((0, 0), (0, 1)), constant_values=PADDING)
    return model_coords, model_labels


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
    coords: ArrayLike, labels: ArrayLike | None, size: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(P, N, 2) points inside an image of `size` (height, width), and their (P, N) labels."""
    points = _numbers("point_coords", coords)
    if points.ndim != 3 or points.shape[-1] != 2 or 0 in points.shape:
        raise PromptError(f"point_coords has shape {points.shape}, expected (prompts, points, 2)")
    if labels is None:
        raise PromptError("point_coords without point_labels: give a label (1 positive, 0 negative) for every point")
    kinds = _numbers("point_labels", labels)
    if kinds.shape != points.shape[:2]:
        raise PromptError(
            f"point_labels has shape {kinds.shape}, expected {points.shape[:2]}: one label for every point"
        )
    for point in points.reshape(-1, 2).tolist():
        check_point(point, size)
    for label in kinds.ravel().tolist():
        if label not in (NEGATIVE, POSITIVE):
            raise PromptError(f"point label {label:g}: expected 1 (positive) or 0 (negative)")
    return points, kinds


def check_point(point: Sequence[float], size: tuple[int, int]) -> None:
    """PromptError if (x, y) is not a point of an image of `size` (height, width)."""
    height, width = size
    x, y = point
    if not (math.isfinite(x) and math.isfinite(y)):
        raise PromptError(f"point ({x:g}, {y:g}): expected two finite numbers, in pixels of the original image")
    if not (0 <= x <= width and 0 <= y <= height):
        raise PromptError(
            f"point ({x:g}, {y:g}) lies outside the image: expected x from 0 to {width} and y from 0 to {height}, "
            "in pixels of the original upright image"
        )


def check_boxes(boxes: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
    """(P, 4) boxes that overlap an image of `size` (height, width), cut off at its border."""
    corners = _numbers("box", boxes)
    if corners.ndim != 2 or corners.shape[1] != 4 or not len(corners):
        raise PromptError(f"box has shape {corners.shape}, expected (boxes, 4): x0, y0, x1, y1")
    for box in corners.tolist():
        check_box(box, size)
    height, width = size
    return np.clip(corners, 0, [width, height, width, height])


def check_box(box: Sequence[float], size: tuple[int, int]) -> None:
    """PromptError if (x0, y0, x1, y1) is not a box that overlaps an image of `size` (height, width)."""
    height, width = size
    x0, y0, x1, y1 = box
    name = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if not all(map(math.isfinite, box)):
        raise PromptError(f"{name}: expected four finite numbers, in pixels of the original image")
    for low, high, low_value, high_value in (("x0", "x1", x0, x1), ("y0", "y1", y0, y1)):
        if high_value <= low_value:
            raise PromptError(f"{name}: {high} must exceed {low}, in pixels of the original image")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise PromptError(f"{name} lies outside the image, which is {width} wide and {height} high")


def check_mask(mask: ArrayLike, prompts: int | None, side: int) -> NDArray[np.float32]:
    """(M, 1, side, side) float32 logits; M is `prompts` or 1 (any number if `prompts` is None)."""
    logits = _numbers("mask_input", mask).astype(np.float32)
    expected = f"({'prompts' if prompts is None else prompts} or 1, 1, {side}, {side})"
    if logits.ndim != 4 or logits.shape[1:] != (1, side, side) or len(logits) == 0:
        raise PromptError(f"mask_input has shape {logits.shape}, expected {expected}: low_res_masks of an earlier call")
    if prompts is not None and len(logits) not in (1, prompts):
        raise PromptError(f"mask_input has shape {logits.shape}, expected {expected}")
    if not np.isfinite(logits).all():
        raise PromptError("mask_input holds NaN or infinity: expected finite logits")
    return logits


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise PromptError(f"{name} is not an array of numbers: {error}") from error
