"""A small set of drawn pictures: rectangles and discs of a colour of their own, with exact masks."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask


def draw(folder: Path, count: int, seed: int = 0) -> None:
    """Writes a COCO-format set; each object's pixels have a colour of its own."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        width, height = int(rng.integers(120, 200)), int(rng.integers(100, 160))
        picture = Image.new("RGB", (width, height), (20, 20, 20))
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height, "source": f"s{i % 2}"})
        for k in range(2):
            mask = Image.new("L", (width, height))
            x, y = 10 + k * width // 2, int(rng.integers(10, 40))
            shape = [x, y, x + width // 3, y + height // 2]
            for target, colour in ((picture, (250, 40, 40) if k else (40, 40, 250)), (mask, 1)):
                drawing = ImageDraw.Draw(target)
                (drawing.ellipse if k else drawing.rectangle)(shape, fill=colour)
            rle = coco_mask.encode(np.asfortranarray(mask))
            rle["counts"] = rle["counts"].decode()
            annotations.append(
                {"id": 1 + 2 * i + k, "image_id": i, "category_id": 1, "iscrowd": 0, "segmentation": rle}
            )
        picture.save(folder / "images" / f"{i}.png")
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "annotations.json").write_text(json.dumps(content))


def blob(seed: int, size: int = 64) -> np.ndarray:
    """A mask with a rectangle on it."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((size, size), bool)
    x, y, w, h = rng.integers(2, 20, 4)
    mask[y : y + h + 8, x : x + w + 8] = True
    return mask
