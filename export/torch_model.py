"""The PyTorch model as a `tinysam.runtime.model.Model`: what exported files are compared with."""

import numpy as np
import torch
from numpy.typing import NDArray

from tinysam.models import MEAN, STD, Sam
from tinysam.models.variants import Variant
from tinysam.runtime.manifest import Cleaning, EverythingThresholds, Manifest, ZoomIn
from tinysam.runtime.model import Model
from tinysam.runtime.prompts import Prompts

Floats = NDArray[np.float32]


def manifest_of(variant: Variant, image_size: int, mask_tokens: tuple[int, ...] = (0, 1, 2, 3)) -> Manifest:
    """The manifest of a variant without files: preprocessing, rules, thresholds."""
    return Manifest(
        variant=variant.name,
        image_size=image_size,
        grid=image_size // variant.encoder.stride,
        mean=MEAN,
        std=STD,
        mask_tokens=mask_tokens,
        files=(),
        everything=EverythingThresholds(**variant.everything),  # type: ignore[arg-type]
        box_masks=variant.box_masks,
        mask_choice=variant.mask_choice,
        cleaning=Cleaning(**variant.cleaning),
        zoom_in=ZoomIn(**variant.zoom_in),
    )


class TorchModel(Model):
    """The plain PyTorch model; all four masks are there unless the manifest lists fewer."""

    backend, precision = "torch", "fp32"

    def __init__(self, model: Sam, manifest: Manifest) -> None:
        self.model, self.manifest = model.eval(), manifest

    @torch.inference_mode()
    def encode(self, image: NDArray[np.float32]) -> Floats:
        """(1, 3, S, S) normalized -> (1, 256, grid, grid)."""
        embedding: Floats = self.model.encode(torch.from_numpy(image)).numpy()
        return embedding

    @torch.inference_mode()
    def decode(self, embedding: Floats, prompts: Prompts) -> tuple[Floats, Floats]:
        """See `Model.decode`."""
        mask = None if prompts.mask_input is None else torch.from_numpy(prompts.mask_input)
        labels = torch.from_numpy(prompts.labels).long()
        decoded = self.model.decode(torch.from_numpy(embedding), torch.from_numpy(prompts.coords), labels, mask)
        offered = list(self.manifest.mask_tokens)
        return decoded.low_res_masks[:, offered].numpy(), decoded.iou[:, offered].numpy()
