"""Decoded photographs, kept in memory while there is room."""

from pathlib import Path

from PIL import Image


def read_rgb(path: Path) -> Image.Image:
    """The photograph as RGB, decoded; OSError if it is missing or no image."""
    with Image.open(path) as image:
        return image.convert("RGB")


class PixelCache:
    """Reads photographs, each from disk only once until `limit` bytes are held."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self.images: dict[Path, Image.Image] = {}

    def read(self, path: Path) -> Image.Image:
        """The photograph; do not change it."""
        image = self.images.get(path)
        if image is None:
            image = read_rgb(path)
            size = 4 * image.width * image.height
            if self.held + size <= self.limit:
                self.images[path] = image
                self.held += size
        return image
