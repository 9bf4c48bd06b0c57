"""What a training picture is made of and how it is changed.

1. A view of a photograph: a crop or the whole, perhaps mirrored; or a mosaic of textures of several photographs.
2. Objects of other photographs pasted on it, some of them filled with a texture of a third one.
3. Colour: brightness, contrast, saturation, gamma, channel gains, swapped channels, grey.
4. Faults of a photograph: night, blur, low resolution, noise, JPEG.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

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
        return self.cover(mask) > 127

    def cover(self, mask: NDArray[np.uint8]) -> Pixels:
        """(height, width) how much of each pixel a mask of the photograph fills, 0 to 255."""
        # pycocotools stores columns, so the transposed mask is the one that Pillow reads without a slow copy.
        x0, y0, x1, y1 = self.box
        columns = Image.fromarray(mask.T * np.uint8(255))
        shown = columns.resize((self.height, self.width), Image.Resampling.BILINEAR, box=(y0, x0, y1, x1))
        return self.turn(shown.transpose(Image.Transpose.TRANSPOSE))

    def resize(self, image: Image.Image) -> Pixels:
        """The rectangle in the view's size, flipped if the view is."""
        return self.turn(image.resize((self.width, self.height), Image.Resampling.BILINEAR, box=self.box))

    def turn(self, shown: Image.Image) -> Pixels:
        """Flipped if the view is."""
        return np.asarray(shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else shown)


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


def texture(photo: Photo, width: int, height: int, rng: Rng) -> View:
    """A random rectangle of the photograph, of a tenth to a half of its long side, shown in this size."""
    side = max(photo.width, photo.height) * np.exp(rng.uniform(np.log(0.1), np.log(0.5)))
    scale = side / max(width, height)
    w, h = min(photo.width, width * scale), min(photo.height, height * scale)
    left, top = rng.uniform(0, photo.width - w), rng.uniform(0, photo.height - h)
    return View((left, top, left + w, top + h), width, height, flip=rng.uniform() < 0.5)


def colour(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Random brightness, contrast, saturation, gamma and channel gains; sometimes grey or with swapped channels."""
    order = rng.permutation(3) if rng.uniform() < strength / 8 else np.arange(3)
    saturation, contrast = 1 + strength * rng.uniform(-1, 1, 2)
    if rng.uniform() < strength / 8:
        saturation = 0.0
    gains = 1 + strength / 3 * rng.uniform(-1, 1, 3)
    level = 255 * strength / 2 * rng.uniform(-1, 1)
    gamma = np.exp(strength * rng.uniform(-1, 1))
    # Everything but gamma is one affine map of (red, green, blue).
    mixed = saturation * np.eye(3)[order] + (1 - saturation) / 3
    offset = gains * (1 - contrast) * pixels[::4, ::4].mean() + level
    matrix = np.column_stack([contrast * gains[:, None] * mixed, offset])
    curve = (255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    image = Image.fromarray(pixels).convert("RGB", tuple(matrix.ravel().tolist()))
    return np.asarray(image.point(curve.tolist() * 3))


def night(pixels: Pixels, rng: Rng) -> Pixels:
    """A picture taken in the dark: a tenth to a half of the light, with a tint and the sensor's noise."""
    light = rng.uniform(0.1, 0.5) * rng.uniform(0.7, 1.2, 3).astype(np.float32)
    return noise((pixels * light).clip(0, 255).astype(np.uint8), rng)


def blur(pixels: Pixels, rng: Rng) -> Pixels:
    """Out of focus: a Gaussian of up to 1 % of the long side."""
    radius = max(pixels.shape[:2]) * rng.uniform(0.002, 0.01)
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def coarsen(pixels: Pixels, rng: Rng) -> Pixels:
    """Low resolution: made smaller by 1.5 to 4 and enlarged again."""
    height, width = pixels.shape[:2]
    factor = rng.uniform(1.5, 4)
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    shrunk = Image.fromarray(pixels).resize(small, Image.Resampling.BILINEAR)
    return np.asarray(shrunk.resize((width, height), Image.Resampling.BILINEAR))


def noise(pixels: Pixels, rng: Rng) -> Pixels:
    """Gaussian noise with a deviation of 3 to 18 of 255."""
    grain = rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(3, 18))
    return (pixels + grain).clip(0, 255).astype(np.uint8)


def compress(pixels: Pixels, rng: Rng) -> Pixels:
    """JPEG of quality 8 to 50."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=int(rng.integers(8, 51)))
    return np.asarray(Image.open(file))


FAULTS = (night, blur, coarsen, noise, compress)


def spoil(pixels: Pixels, rng: Rng) -> Pixels:
    """One fault of a photograph, and every fourth time a second one on top."""
    for i in rng.choice(len(FAULTS), 2 if rng.uniform() < 0.25 else 1, replace=False):
        pixels = FAULTS[i](pixels, rng)
    return pixels


def cells(size: int, count: int, rng: Rng) -> NDArray[np.intp]:
    """(size, size) numbers from 0 to `count` - 1: Voronoi cells of random points, with wavy borders."""
    x = np.arange(size, dtype=np.float32) / size
    waves, phases = rng.uniform(2, 30, 2), rng.uniform(0, 2 * np.pi, 2)
    depth = rng.uniform(0, 0.7 / waves)  # deeper waves would tear cells apart
    shifts = depth * np.sin(waves * x[:, None] + phases)
    points = rng.random((count, 2), np.float32)
    dx = x[None, :, None] + shifts[:, None, 0:1] - points[:, 0]
    dy = x[:, None, None] + shifts[None, :, 1:2] - points[:, 1]
    nearest: NDArray[np.intp] = (dx**2 + dy**2).argmin(axis=-1)
    return nearest


def paste(
    canvas: Pixels, masks: list[NDArray[np.bool_]], thing: Pixels, cover: Pixels, rng: Rng
) -> NDArray[np.bool_] | None:
    """Puts `thing` at a random place of `canvas`, which changes, and hides what lies below.

    Simple copy-paste (Ghiasi et al. 2021, arXiv:2012.07177), with soft edges.

    Args:
        canvas: (H, W, 3).
        masks: (H, W) each; they lose what is hidden.
        thing: (h, w, 3).
        cover: (h, w), how much of the thing shows: 255 inside, 0 outside; above half it is part of its mask.
        rng: draws the place.

    Returns:
        (H, W) visible shape of the thing, or None when it is larger than the canvas.
    """
    height, width = cover.shape
    room_y, room_x = canvas.shape[0] - height, canvas.shape[1] - width
    if room_x < 0 or room_y < 0:
        return None
    top, left = int(rng.integers(room_y + 1)), int(rng.integers(room_x + 1))
    area = np.s_[top : top + height, left : left + width]
    share = cover[..., None].astype(np.float32) / 255
    canvas[area] = (share * thing + (1 - share) * canvas[area] + 0.5).astype(np.uint8)
    shape = cover > 127
    for mask in masks:
        mask[area] &= ~shape
    placed = np.zeros(canvas.shape[:2], bool)
    placed[area] = shape
    return placed
