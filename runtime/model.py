"""What it takes to be a model: `encode` a photograph, `decode` prompts; whatever runs it.

`tinysam.runtime.graphs.Graphs` runs artifact folders, `tinysam.export.torch_model.TorchModel` PyTorch. The segmenter,
everything mode, evaluation and the checks of the exporter take any of them.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.manifest import Manifest
from tinysam.runtime.mask_choice import ambiguous_masks
from tinysam.runtime.preprocess import encoder_input
from tinysam.runtime.prompts import Prompts

Floats = NDArray[np.float32]


class Decoded(NamedTuple):
    """Masks of those of P prompts whose predicted IoU is above the threshold."""

    masks: Floats
    """(K, masks, 4 * grid, 4 * grid) logits."""
    iou: Floats
    """(P, masks) predicted IoU."""
    kept: NDArray[np.intp]
    """(K,) which of the P prompts the masks belong to, ascending."""


class Model(ABC):
    """Encoder and decoder. May be shared between threads."""

    manifest: Manifest
    """Sizes, preprocessing, rules and thresholds."""
    backend: str
    precision: str

    @abstractmethod
    def encode(self, image: NDArray[Any]) -> Floats:
        """`encoder_input` -> the photograph's embedding, to be handed to `decode` as it is."""

    @abstractmethod
    def decode(self, embedding: Floats, prompts: Prompts) -> tuple[Floats, Floats]:
        """Low-res mask logits (P, masks, 4 * grid, 4 * grid) and predicted IoU (P, masks) of P prompts."""

    def decode_above(self, embedding: Floats, prompts: Prompts, iou_threshold: float) -> Decoded:
        """Decodes P prompts of one point; masks only where a predicted IoU is above the threshold.

        The single-mask output is excluded from the threshold test, unless it is the only one.
        """
        masks, iou = self.decode(embedding, prompts)
        kept = passed(self.manifest.mask_tokens, iou, iou_threshold)
        return Decoded(masks[kept], iou, kept)

    def encoder_input(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """What the encoder takes of a resized photograph, (h, w, 3) RGB in 0 to 255."""
        return encoder_input(pixels, self.manifest)

    def warnings(self) -> list[str]:
        """Warnings of the manifest, each once."""
        return []

    def load(self, part: str) -> float:
        """Loads `encoder` or `decoder` now rather than at its first use; returns the milliseconds that it took."""
        return 0.0

    def release(self, part: str) -> bool:
        """Frees the memory of `encoder` or `decoder`, whose next use loads it again; False if there is none to free."""
        return False

    def embedding_nchw(self, embedding: Floats) -> Floats:
        """The embedding that `encode` gave, as (1, 256, grid, grid)."""
        return embedding

    def embedding_from_nchw(self, embedding: Floats) -> Floats:
        """The way back: (1, 256, grid, grid) -> what `decode` takes."""
        return embedding

    @property
    def encoder_sha256(self) -> str:
        """Hash of the encoder, which embeddings are kept with; empty if it has none."""
        return ""

    @property
    def low_res_side(self) -> int:
        """Side of the decoder's masks."""
        return 4 * self.manifest.grid


def passed(tokens: tuple[int, ...], iou: Floats, threshold: float) -> NDArray[np.intp]:
    """Which prompts have an ambiguous mask of higher predicted IoU (P, len(tokens)); as the ONNX decoder decides."""
    return np.flatnonzero(iou[:, ambiguous_masks(tokens)].max(axis=1) > np.float32(threshold))
