"""All settings of a training run, stored in every checkpoint."""

from dataclasses import asdict, dataclass, fields
from typing import Any

MODES = ("supervised", "decoupled", "full-stage")


@dataclass(frozen=True)
class Recipe:
    """What a run does. A resumed run may change only the fields in `RESUMABLE`."""

    variant: str = "nano"
    mode: str = "supervised"
    """`supervised`: masks only; `decoupled`: the teacher's embedding only; `full-stage`: both and more."""
    image_size: int = 448
    """Side of the model's input. Positions are normalized, so weights carry over from 224 to 448."""
    seed: int = 0

    batch: int = 8
    """Photographs per step over all processes."""
    prompts: int = 8
    """Prompts per photograph."""
    box_share: float = 0.5
    """Share of first prompts that are boxes; the others are one click."""
    box_masks: float = 0.0
    """Share of the boxes that come with the filled box as mask input, as the runtime gives them to such a variant."""
    rounds: float = 0.5
    """Mean number of further clicks, drawn from where the prediction is wrong; geometric, at most `max_rounds`."""
    max_rounds: int = 9
    uniform_rounds: bool = False
    """Whether the number of further clicks is drawn evenly from 0 to `max_rounds` instead, as TinySAM's."""
    hard_prompts: bool = True
    """Whether further clicks come from where the prediction is wrong, or from anywhere on the object."""
    hard_mask_weighting: bool = False
    """Whether masks on which the teacher does better than the student weigh more."""

    source_power: float = 0.5
    """A source of n photographs is drawn in proportion to n to this power: 1: photographs alike, 0: sources alike."""

    augmented: bool = True
    """Whether samples are cropped, flipped, coloured and pasted on; if not, they are whole photographs."""
    smallest_crop: float = 0.4
    """Smallest crop in parts of the photograph's long side."""
    whole_share: float = 0.3
    """Share of samples that show the whole photograph."""
    paste_share: float = 0.4
    """Share of samples with an object pasted from another photograph."""
    texture_share: float = 0.15
    """Share of pasted objects that are filled with a texture of another photograph."""
    mosaic_share: float = 0.03
    """Share of samples that are a mosaic of textures; its cells are the masks."""
    colour: float = 0.5
    """Strength of the colour changes, 0 to 1."""
    fault_share: float = 0.2
    """Share of samples with faults of a photograph: night, blur, low resolution, noise, JPEG."""
    shown_share: float = 0.3
    """Share of the mask that a user gets, in the loss of masks 1 to 3."""

    learning_rate: float = 6e-4
    weight_decay: float = 0.05
    warmup: int = 100
    """Steps of linear warm-up."""
    steps: int = 10_000
    decay_steps: int = 2_000
    """The last steps, over which the rate falls linearly to zero (warm-up, stable, decay)."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.998
    """Decay of the averaged weights, which are the ones to use."""
    fake_quantization: bool = False
    """Whether the encoder computes with rounded weights and activations, as INT8 files do; for the last steps."""
    freeze_norm: bool = False
    """Whether batch norm keeps its statistics (then the result does not depend on the number of processes)."""

    def __post_init__(self) -> None:
        """Refuses settings that make no sense, before anything is computed."""
        if self.mode not in MODES:
            raise ValueError(f"unknown mode {self.mode!r}: expected one of {', '.join(MODES)}")
        for name in ("batch", "prompts", "steps", "image_size", "max_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")
        for name in ("seed", "rounds", "warmup", "decay_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 0")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)}: expected more than 0")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected 0 to 1")
        if not 0 < self.smallest_crop <= 1:
            raise ValueError(f"smallest_crop {self.smallest_crop}: expected more than 0, at most 1")
        if self.decay_steps > self.steps:
            raise ValueError(f"decay_steps {self.decay_steps} is more than steps {self.steps}")
        if self.hard_mask_weighting and self.mode != "full-stage":
            raise ValueError(f"hard_mask_weighting compares with a teacher's masks: mode full-stage, not {self.mode}")

    @property
    def needs_masks(self) -> bool:
        """Whether the loss looks at prompts and masks, or at the image embedding alone."""
        return self.mode != "decoupled"

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a checkpoint or a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """From plain values; ValueError names settings this version does not know."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown settings {', '.join(unknown)}; the checkpoint is of another version")
        return cls(**values)


SHARES = (
    "box_share",
    "box_masks",
    "source_power",
    "whole_share",
    "paste_share",
    "texture_share",
    "mosaic_share",
    "colour",
    "fault_share",
    "shown_share",
    "ema",
)
"""Settings between 0 and 1."""

RESUMABLE = frozenset(
    {
        "steps",
        "decay_steps",
        "image_size",
        "batch",
        "whole_share",
        "smallest_crop",
        "source_power",
        "paste_share",
        "texture_share",
        "mosaic_share",
        "fault_share",
        "shown_share",
        "fake_quantization",
        "rounds",
        "uniform_rounds",
        "box_masks",
        "learning_rate",
        "ema",
        "prompts",
        "colour",
    }
)
"""Settings that a resumed run may change, because no stored state depends on them."""


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of this step: linear warm-up, constant, linear decay to zero (Hägele et al. 2024, arXiv:2405.18392)."""
    up = (step + 1) / recipe.warmup if recipe.warmup else 1.0
    down = (recipe.steps - step) / recipe.decay_steps if recipe.decay_steps else 1.0
    return recipe.learning_rate * min(1.0, up, down)
