"""The frames an image lives in, and the way from one to the other.

*Original* frame: pixels of the upright photograph. *Model* frame: the photograph resized so that its long side is
`image_size`, in the top left corner of a square that is zero elsewhere. *Low-res* frame: the decoder's masks, the model
frame at a quarter of the resolution. x points right, y points down; sizes are (height, width), points are (x, y).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinysam.runtime.upscale import Upscaler

LOW_RES_STRIDE = 4
"""Model pixels per low-res pixel."""


@dataclass(frozen=True)
class Frame:
    """Geometry of one image in one model."""

    original_size: tuple[int, int]
    """(height, width) of the photograph."""
    image_size: int
    """Side of the model's square input."""

    @cached_property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the photograph inside the model's input."""
        height, width = self.original_size
        scale = self.image_size / max(height, width)
        # SAM rounds halves up; a photograph 3000 times as wide as high still gets a row.
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def to_model(self, points: ArrayLike) -> NDArray[np.float32]:
        """(..., 2) x and y of the original frame -> of the model frame, float32."""
        return (np.asarray(points, np.float64) * self._scale).astype(np.float32)

    def to_original(self, points: ArrayLike) -> NDArray[np.float64]:
        """(..., 2) x and y of the model frame -> of the original frame, float64."""
        return np.asarray(points, np.float64) / self._scale

    @cached_property
    def upscaler(self) -> Upscaler:
        """From low-res logits to the photograph's size."""
        return Upscaler.through_model(
            self.image_size // LOW_RES_STRIDE, self.image_size, self.input_size, self.original_size
        )

    @cached_property
    def low_res_size(self) -> tuple[int, int]:
        """(height, width) of the part of a low-res mask that shows the photograph, its last pixels maybe in part."""
        height, width = self.input_size
        return -(-height // LOW_RES_STRIDE), -(-width // LOW_RES_STRIDE)

    @cached_property
    def _scale(self) -> NDArray[np.float64]:
        (height, width), (new_height, new_width) = self.original_size, self.input_size
        return np.array([new_width / width, new_height / height])
