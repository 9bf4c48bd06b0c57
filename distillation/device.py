"""Where a step runs: on which processor, in which precision, in how many processes.

`torchrun` starts several processes; a single one needs none of what is below `join`. They share each step's batch,
gradients are averaged and batch norms are over all their samples, so the result is that of one process up to rounding.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
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


def own_device(name: str) -> str:
    """The device of this process: under `torchrun`, `cuda` is the GPU of the process' number on its machine.

    Raises:
        ValueError: There is no GPU that PyTorch can use.
    """
    if not name.startswith("cuda"):
        return name
    if not torch.cuda.is_available():
        raise ValueError(f"device {name}: no GPU that PyTorch can use; take --device cpu")
    local = os.environ.get("LOCAL_RANK")
    return name if local is None or ":" in name else f"{name}:{local}"


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


def join(device: str) -> tuple[int, int]:
    """Joins the other processes if `torchrun` started this one; rank and number of processes."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return dist.get_rank(), world


def leave() -> None:
    """Ends the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces every gradient by its mean over the processes, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        """Adds up copies, so that the input stays."""
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        """Every process' loss depends on every process' input."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics are those of all processes' samples; also on CPUs, unlike torch's SyncBatchNorm."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        world, count = dist.get_world_size(), x.numel() // x.shape[1]
        values = x.float()
        sums = torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        mean, square = SumOverProcesses.apply(sums) / (count * world)  # type: ignore[no-untyped-call]
        variance = (square - mean.square()).clamp(min=0)
        with torch.no_grad():
            total = count * world
            momentum = self.momentum or 0.1
            if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
                raise TypeError("batch norm without running statistics")
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(variance.detach() * total / (total - 1), momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return torch.addcmul(shift.view(1, -1, 1, 1), values, scale.view(1, -1, 1, 1)).to(x.dtype)


def share_batch_norm(model: nn.Module) -> None:
    """Makes every batch norm of the model one over all processes; parameters and their names stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
