"""Photographs that come with scikit-image (public domain or CC0), so that nothing has to be downloaded."""

from pathlib import Path

from tinysam.calibration.errors import CalibrationError

NAMES = (
    "chelsea.png",
    "astronaut.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "camera.png",
    "coins.png",
    "retina.jpg",
    "hubble_deep_field.jpg",
    "gravel.png",
)
"""Everyday scenes first; textures and instruments last."""


def bundled_photographs() -> list[Path]:
    """Paths of the photographs in the installed scikit-image.

    Raises:
        CalibrationError: scikit-image is not installed or lacks them.
    """
    try:
        import skimage.data
    except ImportError as error:
        raise CalibrationError(
            "the default calibration images come with scikit-image, which is not installed: "
            "pip install tinysam-edge[export], or give a folder of your own photographs"
        ) from error
    folder = Path(skimage.data.__file__).parent
    paths = [folder / name for name in NAMES if (folder / name).is_file()]
    if not paths:
        raise CalibrationError(f"scikit-image in {folder} has none of its photographs; give a folder of your own")
    return paths
