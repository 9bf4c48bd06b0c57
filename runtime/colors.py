"""Colours by ICC profile: the models were trained on sRGB, phones and cameras write wider gamuts, printers CMYK."""

import io

import numpy as np
from PIL import Image

_SAME_LEVELS = 2
"""A profile whose colours all come out within so many levels of 255 is sRGB by another name."""
_GRID = 6
"""Levels of each of red, green and blue that are tried for that."""
_SPACES = {"CMYK": "CMYK", "L": "GRAY", "LAB": "Lab"}
"""Mode -> colour space of the profiles that fit it; those of all other modes are for RGB."""


def to_srgb(image: Image.Image) -> tuple[Image.Image, Image.Image, str]:
    """Converts an 8-bit picture without transparency to RGB, by the profile in its `info`.

    Returns:
        The picture in sRGB; the picture as RGB in its own colours, whose `info` has its profile if that is an RGB one
        other than sRGB (else the same object); and a note if a profile could not be used.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        plain = _plain(image)
        return plain, plain, ""
    try:
        return _by_profile(image, profile)
    except ImportError:
        note = "its colour profile is ignored, as this Pillow has no colour management"
    except ValueError as error:
        note = f"its colour profile is ignored: {error}"
    plain = _plain(image)
    plain.info.pop("icc_profile", None)
    return plain, plain, note


def _by_profile(image: Image.Image, data: bytes) -> tuple[Image.Image, Image.Image, str]:
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        if space == "RGB" and image.mode != "CMYK":
            image = _plain(image)
        elif space != _SPACES.get(image.mode):
            raise ValueError(f"it is for {space} and the picture is {image.mode}")
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(profile, srgb, image.mode, "RGB")
        if image.mode == "RGB" and _changes_nothing(transform):
            return image, image, ""
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError(f"it is damaged ({' '.join(str(error).split())[:80]})") from error
    if converted is None:
        raise ValueError("it cannot be applied")
    converted.info.pop("icc_profile", None)
    return converted, image if image.mode == "RGB" else converted, ""


def _changes_nothing(transform: object) -> bool:
    from PIL import ImageCms

    levels = np.linspace(0, 255, _GRID).astype(np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    converted = ImageCms.applyTransform(Image.fromarray(colors), transform)  # type: ignore[arg-type]
    difference = np.asarray(converted, np.int16) - colors
    return bool(np.abs(difference).max() <= _SAME_LEVELS)


def _plain(image: Image.Image) -> Image.Image:
    """RGB by Pillow's own formulas."""
    return image if image.mode == "RGB" else image.convert("RGB")
