"""`segment_anything.utils.transforms.ResizeLongestSide`, for code that transforms its prompts itself."""

import sys
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinysam.runtime.geometry import Frame
from tinysam.runtime.preprocess import resize, to_pil


class ResizeLongestSide:
    """Resizes images so that their long side is `target_length`, and moves prompts along."""

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def apply_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 (height, width, 3) to its size in the model."""
        return resize(to_pil(image), self._frame(image.shape[:2]))

    def apply_coords(self, coords: ArrayLike, original_size: tuple[int, int]) -> NDArray[np.float32]:
        """(..., 2) x and y in pixels of an image of (height, width) to the model frame."""
        return self._frame(original_size).to_model(coords)

    def apply_boxes(self, boxes: ArrayLike, original_size: tuple[int, int]) -> NDArray[np.float32]:
        """(n, 4) x0, y0, x1, y1 likewise."""
        return self.apply_coords(np.asarray(boxes).reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def apply_image_torch(self, image: Any) -> Any:
        """A float tensor (batch, 3, height, width) to its size in the model: bilinear, antialiased, not rounded."""
        size = self._frame(tuple(image.shape[-2:])).input_size
        functional = sys.modules["torch"].nn.functional  # whoever has a tensor has torch
        return functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)

    def apply_coords_torch(self, coords: Any, original_size: tuple[int, int]) -> Any:
        """`apply_coords` for a tensor."""
        return coords.new_tensor(self.apply_coords(np.asarray(coords), original_size))

    def apply_boxes_torch(self, boxes: Any, original_size: tuple[int, int]) -> Any:
        """`apply_boxes` for a tensor."""
        return boxes.new_tensor(self.apply_boxes(np.asarray(boxes), original_size))

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        """(height, width) in the model."""
        return Frame((oldh, oldw), long_side_length).input_size

    def _frame(self, size: tuple[int, ...]) -> Frame:
        return Frame((size[0], size[1]), self.target_length)
