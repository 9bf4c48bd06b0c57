"""`python -m tinysam.distillation.soup A B ... --out C`: the mean of several weights of one run (model soup).

Weights that lie on one run, each at the end of a decay of the learning rate, share a basin; their mean is nearer to its
middle than any of them (Izmailov et al. 2018, arXiv:1803.05407; Wortsman et al. 2022, arXiv:2203.05482). It costs no
training and nothing at run time.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from tinysam.distillation.checkpoints import half
from tinysam.models.checkpoint import CheckpointError, read_state
from tinysam.runtime.atomic import write_atomically
from tinysam.runtime.process import run_command


def shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    """What two weights must have in common."""
    return {name: value.shape for name, value in state.items()}


def mean(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of floating-point tensors in fp32; other tensors as in the first file.

    Raises:
        CheckpointError: a file cannot be read, or holds other tensors than the first.
    """
    first, *others = (read_state(path) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        if shapes(other) != shapes(first):
            raise CheckpointError(
                f"{path} holds other tensors than {paths[0]}: only weights of one variant have a mean"
            )
    return {
        name: torch.stack([value.float(), *(other[name].float() for other in others)]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    options = argparse.ArgumentParser(prog="python -m tinysam.distillation.soup", description=__doc__)
    options.add_argument("weights", type=Path, nargs="+", help="files of one variant, in the official key layout")
    options.add_argument("--out", type=Path, required=True, help="safetensors file, fp16")
    args = options.parse_args(argv)
    return run_command(
        "soup", lambda: write_atomically(args.out, save(half(mean(args.weights)))), "stopped; nothing was written"
    )


if __name__ == "__main__":
    sys.exit(main())
