"""Where and in which precision a step runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tinysam.distillation.samples import Batch
from tinysam.models import Sam, normalize

FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class Device:
    """A processor or GPU."""

    name: str = "cpu"
    half: bool = False
    """Whether to compute in bfloat16 where autocast allows it."""

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Autocast, and on a CPU plain attention: torch's fused attention has a slow backward there."""
        kernels = [SDPBackend.MATH] if self.name == "cpu" else FUSED
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.half), sdpa_kernel(kernels):
            yield

    @property
    def kind(self) -> str:
        """`cpu` or `cuda`, without a number."""
        return self.name.partition(":")[0]

    def exact(self) -> torch.autocast:
        """Full precision inside `computing`, for losses."""
        return torch.autocast(self.kind, enabled=False)

    def free_bytes(self) -> int:
        """Memory that is free on a GPU; 0 on a CPU, where there is nothing to copy to."""
        return torch.cuda.mem_get_info(self.name)[0] if self.kind == "cuda" else 0

    def take(self, batch: Batch) -> Batch:
        """The batch on this device."""
        if self.name == "cpu":
            return batch
        return Batch(**{k: v.to(self.name, non_blocking=True) for k, v in vars(batch).items()})


def compile_model(model: Sam, backend: str = "inductor") -> None:
    """Compiles encoder and decoder in place with a backend of torch.compile; the state dict keeps its names.

    The kernels between the products (casts, GELU, norms, sums) are half of a step's time on a CPU, and fuse.
    """
    model.image_encoder.compile(backend=backend)
    model.mask_decoder.compile(backend=backend)


def images(batch: Batch) -> Tensor:
    """(B, 3, S, S) normalized, zeros in the padding."""
    x = normalize(batch.pixels.float())
    side = torch.arange(x.shape[-1], device=x.device)
    rows, cols = side < batch.shown[:, :1], side < batch.shown[:, 1:]
    return x * (rows[:, None, :, None] & cols[:, None, None, :])
