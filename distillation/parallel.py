"""Several processes as one: gradients averaged, batch norm over all their samples.

Started by `torchrun`; a single process needs none of it. The processes share each step's batch, so the result is that
of one process up to rounding.
"""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


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
