"""Colours that are easy to tell apart."""

import math

GOLDEN_ANGLE = 137.508
"""Degrees between the hues of neighbouring numbers: any run of numbers spreads evenly over the circle."""
_FIRST_HUE = 230.0
_LIGHTNESS, _LIGHTNESS_STEP, _CHROMA = 0.70, 0.10, 0.20
"""Of those tried, with the first hue, these keep the first twelve colours farthest apart: 73 in RGB."""

Color = tuple[int, int, int]


def color(index: int) -> Color:
    """The colour of object `index`: one of three lightnesses, hues a golden angle apart in OKLCH (Ottosson 2020)."""
    hue = math.radians(_FIRST_HUE + GOLDEN_ANGLE * index)
    lightness = _LIGHTNESS + _LIGHTNESS_STEP * (index % 3 - 1)
    return _oklab_to_rgb(lightness, _CHROMA * math.cos(hue), _CHROMA * math.sin(hue))


def lighter(rgb: Color, amount: float) -> Color:
    """`rgb` mixed with white; `amount` 0 to 1."""
    red, green, blue = (round(value + (255 - value) * amount) for value in rgb)
    return red, green, blue


def _oklab_to_rgb(lightness: float, a: float, b: float) -> Color:
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = _encode(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short)
    green = _encode(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short)
    blue = _encode(-0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short)
    return red, green, blue


def _encode(linear: float) -> int:
    """Linear light 0 to 1 to an sRGB byte."""
    linear = min(max(linear, 0.0), 1.0)
    encoded = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return round(255 * encoded)
