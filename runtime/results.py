"""Typed results: masks of a photograph, with how and how fast they came about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.masks.rle import Rle


def add_times(times: dict[str, float], further: Mapping[str, float]) -> None:
    """Adds milliseconds of stages: of one that runs more than once, what it took adds up."""
    for stage, ms in further.items():
        times[stage] = times.get(stage, 0.0) + ms


@dataclass(frozen=True)
class MaskRecord:
    """One segmented object, in the original frame."""

    rle: Rle
    predicted_iou: float
    """The model's own estimate of the mask's IoU with the true one."""
    stability_score: float
    """IoU of the mask cut at logit +offset with the mask cut at -offset."""
    point_coords: tuple[tuple[float, float], ...] = ()
    """Points of the prompt, (x, y)."""
    point_labels: tuple[int, ...] = ()
    """1 on the object, 0 off it."""
    box: tuple[float, float, float, float] | None = None
    """Box of the prompt, x0, y0, x1, y1."""
    crop_box: tuple[int, int, int, int] | None = None
    """x0, y0, x1, y1 of the part of the photograph it was found in; None for all of it."""

    @property
    def area(self) -> int:
        """Pixels."""
        return self.rle.area

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        """x, y, width, height of the smallest box that holds the mask."""
        x0, y0, x1, y1 = self.rle.box
        return x0, y0, x1 - x0, y1 - y0

    def mask(self) -> NDArray[np.bool_]:
        """bool (height, width)."""
        return self.rle.decode()


@dataclass(frozen=True)
class Result:
    """All masks of one photograph."""

    name: str
    """Where the picture came from."""
    image_size: tuple[int, int]
    """(height, width) of the upright photograph."""
    masks: Sequence[MaskRecord]
    """In everything mode sorted by area, largest first; else one for each prompt, in order."""
    model: str
    """Variant and input size, as `nano-448`."""
    backend: str
    precision: str
    timing_ms: dict[str, float] = field(default_factory=dict)
    """Stage -> milliseconds."""
    notes: tuple[str, ...] = ()
    """What a user should know: relaxed thresholds, ignored frames."""
    everything: bool = False
    """Whether the masks are of segment-everything, or of prompts."""
