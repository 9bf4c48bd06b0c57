"""What every image encoder has in common, so that nothing outside of an encoder's own files knows its kind.

An encoder is two things here: a frozen dataclass of sizes, which a variant names, and the module that it builds.
"""

from typing import Protocol

from torch import Tensor, nn


class EncoderSizes(Protocol):
    """All that tells one encoder from another of its kind, and what the rest of the project asks of that kind."""

    @property
    def stride(self) -> int:
        """Pixels of the model's input per cell of the embedding grid."""

    @property
    def edge_graph(self) -> str | None:
        """`module:class` of the encoder's edge graph, see `tinysam.export.encoder_graph`; None: it is not exported."""

    @property
    def unused_keys(self) -> tuple[str, ...]:
        """Beginnings of keys that official checkpoints have and segmentation does not use, as a classifier's."""

    def check_image_size(self, image_size: int) -> None:
        """Raises ValueError for a side of the input, in pixels, that the encoder cannot take."""

    def build(self, image_size: int) -> "ImageEncoder":
        """The encoder with freshly initialized parameters, for inputs of this side in pixels."""


class ImageEncoder(nn.Module):
    """An image encoder: (B, 3, S, S) normalized pixels -> (B, embed_dim, S / stride, S / stride)."""

    neck: nn.Sequential
    """SAM's projection of the last stage to the embedding, see `tinysam.models.layers.neck`."""

    def __init__(self, sizes: EncoderSizes) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError
