import numpy as np
import pytest

from tinysam.datasets.coco import Photo
from tinysam.runtime.geometry import Frame
from tinysam.runtime.manifest import Manifest
from tinysam.runtime.model import Model
from tinysam.runtime.segmenter import Segmenter


@pytest.fixture(autouse=True)
def alone(one_thread: None) -> None:
    """Every test here computes with one thread."""


class KnowingGraphs(Model):
    """Answers every prompt with the annotated mask its first point or box belongs to, as mask 2 of four.

    Mask 0 is empty, masks 1 and 3 are everything; mask 2 has the highest predicted IoU.
    """

    backend = "knowing"
    precision = "fp32"

    def __init__(self) -> None:
        self.manifest = Manifest("knowing", 448, 28, (0, 0, 0), (1, 1, 1), (0, 1, 2, 3), ())
        self.photo: Photo | None = None

    def encoder_input(self, pixels):
        return pixels

    def encode(self, image):
        return np.zeros((1, 256, 28, 28), np.float32)

    def decode(self, embedding, prompts):
        frame = Frame((self.photo.height, self.photo.width), 448)
        low_res = np.full((len(prompts), 4, 112, 112), -10, np.float32)
        low_res[:, 1::2] = 10
        for p, (coords, labels) in enumerate(zip(prompts.coords, prompts.labels, strict=True)):
            at = coords[:2].mean(axis=0) if labels[0] == 2 else coords[0]
            x, y = frame.to_original(at).astype(int)
            mask = next(m.decode() for m in self.photo.masks if m.decode()[y, x])
            step = max(self.photo.width, self.photo.height) / 112
            rows, cols = (((np.arange(112) + 0.5) * step).astype(int) for _ in range(2))
            padded = np.zeros((max(mask.shape) + 2,) * 2, np.uint8)
            padded[: mask.shape[0], : mask.shape[1]] = mask
            low_res[p, 2] = 20.0 * padded[np.ix_(rows, cols)] - 10
        iou = np.tile(np.array([0.1, 0.2, 0.9, 0.3], np.float32), (len(prompts), 1))
        return low_res, iou


class KnowingSegmenter(Segmenter):
    def __init__(self) -> None:
        self.graphs = KnowingGraphs()
        self.reset_image()


@pytest.fixture
def knowing() -> KnowingSegmenter:
    return KnowingSegmenter()
