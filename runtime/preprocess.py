"""From a photograph to the encoder's input, as SAM does it."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinysam.runtime.geometry import Frame
from tinysam.runtime.manifest import Manifest
from tinysam.runtime.samples import to_rgb


def to_pil(image: Any, image_format: str = "RGB") -> Image.Image:
    """The RGB picture that the model sees of a PIL picture of any mode or an array: see `tinysam.runtime.samples`.

    What loses or assumes something (samples scaled to 8 bits, bands left out) is a warning.

    Raises:
        ValueError: another `image_format` than `RGB` or `BGR`.
        ImageError: no pixels, no numbers, or another shape.
    """
    converted = to_rgb(image, image_format)
    for note in converted.notes:
        warnings.warn(f"image: {note}", stacklevel=3)
    return converted.image


def resize(image: Image.Image, frame: Frame, box: tuple[float, float, float, float] | None = None) -> NDArray[np.uint8]:
    """The picture inside the model's input: uint8 (new height, new width, 3), bilinear with antialiasing as in PIL.

    With `box`, x0, y0, x1, y1 in its pixels, that part of it.
    """
    height, width = frame.input_size
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box))


def encoder_input(
    pixels: NDArray[Any], manifest: Manifest, kind: str = "normalized", layout: str = "NCHW", dtype: str = "float32"
) -> NDArray[Any]:
    """What an encoder file takes of a photograph that was resized to the model's input.

    Args:
        pixels: (h, w, 3) RGB in 0 to 255.
        manifest: side, mean and standard deviation of the input.
        kind: `normalized`: (pixel - mean) / std. `pixels`: whole numbers from 0 to 255, and a fourth channel that is 1
            on the photograph; the file normalizes.
        layout: `NCHW` or `NHWC`.
        dtype: `float32`, or `uint8` for `pixels`.

    Returns:
        (1, C, image_size, image_size) or (1, image_size, image_size, C), zeros right of and below the photograph.
    """
    height, width, _ = pixels.shape
    side, channels = manifest.image_size, 3 if kind == "normalized" else 4
    shape = (channels, side, side) if layout == "NCHW" else (side, side, channels)
    out = np.zeros((1, *shape), dtype)
    inside = (out[0] if layout == "NHWC" else out[0].transpose(1, 2, 0))[:height, :width]
    if kind == "normalized":
        inside[...] = pixels
        inside -= np.array(manifest.mean, np.float32)
        inside /= np.array(manifest.std, np.float32)
    else:
        inside[..., :3] = pixels if pixels.dtype == np.uint8 else np.rint(pixels).clip(0, 255)
        inside[..., 3] = 1
    return out


def normalize(pixels: NDArray[Any], manifest: Manifest) -> NDArray[np.float32]:
    """(h, w, 3) RGB in 0 to 255 -> (1, 3, image_size, image_size): (pixel - mean) / std, then zeros right and below."""
    return encoder_input(pixels, manifest)
