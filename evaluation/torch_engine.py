"""PyTorch models behind the runtime's segmenter: the same preprocessing, prompts and mask resizing as the artifacts.

Needs torch and `tinysam.models`; the other engines do not.
"""

from pathlib import Path

import torch

from tinysam.export.torch_model import TorchModel, manifest_of
from tinysam.models import get_variant, load
from tinysam.runtime.segmenter import Segmenter


class TorchSegmenter(Segmenter):
    """A segmenter that runs a PyTorch model."""

    def __init__(self, name: str, checkpoint: Path | None, image_size: int | None, threads: int) -> None:
        """Loads `checkpoint`, or the embedded weights; CheckpointError if they do not fit the variant."""
        torch.set_num_threads(threads)
        variant = get_variant(name)
        model = load(variant, checkpoint, image_size)
        self.graphs = TorchModel(model, manifest_of(variant, model.image_size))
        self.reset_image()
