"""PyTorch models behind the runtime's segmenter: the same preprocessing, prompts and mask resizing as the artifacts.

Needs torch and `tinysam.models`; the other engines do not.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tinysam.models import MEAN, STD, Sam, get_variant, load
from tinysam.runtime.graphs import Decoded, passed
from tinysam.runtime.manifest import Cleaning, EverythingThresholds, Manifest
from tinysam.runtime.preprocess import normalize
from tinysam.runtime.prompts import Prompts
from tinysam.runtime.segmenter import Segmenter

Floats = NDArray[np.float32]


def manifest_of(name: str, model: Sam) -> Manifest:
    """What an artifact folder of this model would say; all four masks are there."""
    variant = get_variant(name)
    return Manifest(
        variant=name,
        image_size=model.image_size,
        grid=model.grid,
        mean=MEAN,
        std=STD,
        mask_tokens=(0, 1, 2, 3),
        files=(),
        everything=EverythingThresholds(**variant.everything),  # type: ignore[arg-type]
        box_masks=variant.box_masks,
        mask_choice=variant.mask_choice,
        cleaning=Cleaning(**variant.cleaning),
    )


class TorchGraphs:
    """Stands in for `tinysam.runtime.graphs.Graphs`."""

    backend, precision = "torch", "fp32"

    def __init__(self, name: str, model: Sam, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model, self.threads = model.eval(), threads
        self.manifest = manifest_of(name, model)
        self.low_res_side = 4 * model.grid

    def load(self, part: str) -> float:
        """Milliseconds spent loading: none, the model is in memory."""
        return 0.0

    def encoder_input(self, pixels: NDArray[Any]) -> Floats:
        """(h, w, 3) RGB in 0 to 255 -> (1, 3, S, S) normalized."""
        return normalize(pixels, self.manifest)

    @torch.inference_mode()
    def encode(self, image: Floats) -> Floats:
        """(1, 3, S, S) normalized -> (1, 256, grid, grid)."""
        embedding: Floats = self.model.encode(torch.from_numpy(image)).numpy()
        return embedding

    def embedding_nchw(self, embedding: Floats) -> Floats:
        """The embedding as it is."""
        return embedding

    @torch.inference_mode()
    def decode(self, embedding: Floats, prompts: Prompts) -> tuple[Floats, Floats]:
        """Low-res logits (P, 4, 4 * grid, 4 * grid) and predicted IoU (P, 4)."""
        mask = None if prompts.mask_input is None else torch.from_numpy(prompts.mask_input)
        labels = torch.from_numpy(prompts.labels).long()
        decoded = self.model.decode(torch.from_numpy(embedding), torch.from_numpy(prompts.coords), labels, mask)
        return decoded.low_res_masks.numpy(), decoded.iou.numpy()

    def decode_above(self, embedding: Floats, prompts: Prompts, iou_threshold: float) -> Decoded:
        """As `Graphs.decode_above`, but all masks are drawn first."""
        masks, iou = self.decode(embedding, prompts)
        kept = passed(self.manifest.mask_tokens, iou, iou_threshold)
        return Decoded(masks[kept], iou, kept)


class TorchSegmenter(Segmenter):
    """A segmenter that runs a PyTorch model."""

    def __init__(self, name: str, checkpoint: Path | None, image_size: int | None, threads: int) -> None:
        """Loads `checkpoint`, or the embedded weights; CheckpointError if they do not fit the variant."""
        model = load(get_variant(name), checkpoint, image_size)
        self.graphs = TorchGraphs(name, model, threads)  # type: ignore[assignment]
        self.reset_image()
