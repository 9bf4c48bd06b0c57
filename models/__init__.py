"""PyTorch definitions of the models: encoders, prompt encoder, mask decoder, registry, checkpoints."""

from tinysam.models.checkpoint import CheckpointError, load
from tinysam.models.sam import MEAN, STD, Sam, normalize
from tinysam.models.variants import VARIANTS, Variant, build, get_variant

__all__ = [
    "MEAN",
    "STD",
    "VARIANTS",
    "CheckpointError",
    "Sam",
    "Variant",
    "build",
    "get_variant",
    "load",
    "normalize",
]
