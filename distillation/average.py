"""Exponential moving average of the parameters: the weights to use."""

import torch
from torch import Tensor, nn


class Average:
    """Keeps `decay` times itself plus the rest of the model, parameters and batch norm statistics alike."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """After optimizer step `step`; the average warms up over the first steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    def load(self, state: dict[str, Tensor]) -> None:
        """Continues from a stored average."""
        for name, value in state.items():
            self.state[name].copy_(value)
