"""What a training picture is cut from and how it is changed: crops, flips, colour, pasted objects."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinysam.datasets.coco import Mask, Photo

Rng = np.random.Generator
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """A rectangle of a photograph, and the size it is shown in: the top left part of a square input."""

    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the photograph."""
    width: int
    height: int
    flip: bool

    def image(self, photograph: Image.Image) -> Pixels:
        """(height, width, 3) of the rectangle, bilinear with antialiasing as at inference."""
        return self.resize(photograph)

    def mask(self, mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """(height, width) of a mask of the photograph."""
        return self.resize(Image.fromarray(mask * np.uint8(255))) > 127

    def resize(self, image: Image.Image) -> Pixels:
        """The rectangle in the view's size, flipped if the view is."""
        shown = np.asarray(image.resize((self.width, self.height), Image.Resampling.BILINEAR, box=self.box))
        return shown[:, ::-1] if self.flip else shown


def whole(photo: Photo, size: int, flip: bool = False) -> View:
    """The whole photograph with its long side at `size`: what the model sees at inference."""
    scale = size / max(photo.width, photo.height)
    width, height = round(photo.width * scale), round(photo.height * scale)
    return View((0, 0, photo.width, photo.height), max(1, width), max(1, height), flip)


def crop(photo: Photo, size: int, around: Mask, smallest: float, rng: Rng) -> View:
    """A random rectangle that contains a point of `around`'s box.

    Its side is between `smallest` and 1 of the photograph's long side (log-uniform), its shape jittered by 1.25.
    """
    side = max(photo.width, photo.height) * np.exp(rng.uniform(np.log(smallest), 0))
    shape = np.exp(rng.uniform(-0.5, 0.5) * np.log(1.25))
    width, height = min(photo.width, side * shape), min(photo.height, side / shape)
    x0, y0, x1, y1 = around.box
    left = np.clip(rng.uniform(x0, x1) - rng.uniform() * width, 0, photo.width - width)
    top = np.clip(rng.uniform(y0, y1) - rng.uniform() * height, 0, photo.height - height)
    scale_x, scale_y = size / (side * shape), size / (side / shape)
    shown = (max(1, min(size, round(width * scale_x))), max(1, min(size, round(height * scale_y))))
    return View((left, top, left + width, top + height), *shown, flip=rng.uniform() < 0.5)


def colour(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Random brightness, contrast, saturation and channel gains; sometimes grey."""
    x = pixels.astype(np.float32)
    grey = x.mean(axis=-1, keepdims=True)
    saturation, contrast = 1 + strength * rng.uniform(-1, 1, 2)
    if rng.uniform() < strength / 8:
        saturation = 0.0
    gains = 1 + strength / 3 * rng.uniform(-1, 1, 3)
    level = 255 * strength / 2 * rng.uniform(-1, 1)
    x = grey + saturation * (x - grey)
    mean = grey.mean()
    x = (mean + contrast * (x - mean)) * gains + level
    changed: Pixels = x.clip(0, 255).astype(np.uint8)
    return changed


def paste(
    canvas: Pixels, masks: list[NDArray[np.bool_]], thing: Pixels, shape: NDArray[np.bool_], rng: Rng
) -> NDArray[np.bool_] | None:
    """Puts `thing` where `shape` is true at a random place of `canvas`, which changes, and hides what lies below.

    Simple copy-paste (Ghiasi et al. 2021, arXiv:2012.07177). Returns the visible shape on the canvas, or None when
    the thing is larger than the canvas.
    """
    height, width = shape.shape
    room_y, room_x = canvas.shape[0] - height, canvas.shape[1] - width
    if room_x < 0 or room_y < 0:
        return None
    top, left = int(rng.integers(room_y + 1)), int(rng.integers(room_x + 1))
    area = np.s_[top : top + height, left : left + width]
    canvas[area][shape] = thing[shape]
    for mask in masks:
        mask[area] &= ~shape
    placed = np.zeros(canvas.shape[:2], bool)
    placed[area] = shape
    return placed
