"""What the manifest of an artifact folder holds: of the model, of every file, of every tensor."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.labels import LABELS

SCHEMA = 2
"""The one version of the format that this code reads and writes."""
STRIDE = 16
"""Pixels of the model's input per cell of the embedding grid."""
PARTS = ("encoder", "decoder")
PRECISIONS = ("fp32", "fp16", "int8")
"""In ascending order of preference; `fp16`: weights of 16 bits, and arithmetic where the processor has it."""
ENGINES = tuple(FORMATS)
LAYOUTS = ("NCHW", "NHWC")
INPUTS = ("normalized", "pixels")
"""What an encoder takes: (pixel - mean) / std; or pixels as whole numbers, and a channel that says where they are."""
MASK_CHOICES = ("single", "steady", "best", "stability")
"""Rules of `tinysam.runtime.mask_choice.choose_mask`."""


@dataclass(frozen=True)
class TensorSpec:
    """Shape and type of one tensor."""

    shape: tuple[int | str, ...]
    """Axis lengths; a string names a free dimension."""
    dtype: str = "float32"


@dataclass(frozen=True)
class Signature:
    """One way to call a model file."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


@dataclass(frozen=True)
class ModelFile:
    """One graph on disk."""

    path: str
    """File name inside the artifact folder."""
    part: str
    """`encoder` or `decoder`."""
    precision: str
    """One of `PRECISIONS`."""
    engine: str
    """`onnx` or `tflite`."""
    sha256: str
    size_bytes: int
    layout: str
    """`NCHW` or `NHWC`, of every image-like tensor."""
    signatures: dict[str, Signature]
    input: str | None = None
    """What an encoder takes, one of `INPUTS`; None for a decoder."""
    parity: dict[str, Any] | None = None
    """How far the file's outputs are from the reference; None for a file without a check."""
    quantization: dict[str, Any] | None = None
    """Scheme, target, hash of the calibration set, operations kept in float; None for fp32."""


def _limited(default: float, low: float, high: float) -> Any:
    """A field whose smallest and largest value `tinysam.runtime.manifest.parse` checks."""
    return field(default=default, metadata={"limits": (low, high)})


@dataclass(frozen=True)
class EverythingThresholds:
    """Settings of segment-everything that were chosen for one model; the defaults are SAM's and TinySAM's."""

    points_per_side: int = _limited(32, 1, 256)
    pred_iou_thresh: float = _limited(0.88, 0.0, 1.0)
    stability_score_thresh: float = _limited(0.95, 0.0, 1.0)
    stability_score_offset: float = _limited(1.0, 0.0, 100.0)
    box_nms_thresh: float = _limited(0.7, 0.0, 1.0)
    coarse_logit_thresh: float = _limited(8.5, -1000.0, 1000.0)
    """Hierarchical mode: a good mask covers the points where its logit is above this."""
    coarse_agreement: int = _limited(1, 1, 100)
    """Hierarchical mode: so many good masks over a point make it known, so that it is not asked."""
    coarse_share: float = _limited(1.0, 0.0, 1.0)
    """Hierarchical mode: most of the grid's points that are asked, as a part of all."""


@dataclass(frozen=True)
class Cleaning:
    """Smallest shares of a mask's area below which parts of it are changed; 0 changes nothing."""

    islands: float = 0.0
    """Smaller separate parts are removed."""
    holes: float = 0.0
    """Smaller holes are filled."""


@dataclass(frozen=True)
class ZoomIn:
    """Windows of `tinysam.runtime.zoom`; 0: objects so prompted are not looked at closer."""

    box: float = 0.0
    """Side of the window around a box prompt, in long sides of the box."""
    mask: float = 0.0
    """Side of the window around the mask that clicks gave first, in long sides of the mask's box."""


@dataclass(frozen=True)
class Manifest:
    """Sizes, preprocessing, rules, thresholds and files of one model."""

    variant: str
    image_size: int
    """Side of the square input in pixels."""
    grid: int
    """Side of the embedding, `image_size / 16`."""
    mean: tuple[float, float, float]
    """Per channel, RGB, in units of 0 to 255."""
    std: tuple[float, float, float]
    mask_tokens: tuple[int, ...]
    """Which of SAM's four mask tokens the decoder's mask axis holds, in order."""
    files: tuple[ModelFile, ...]
    everything: EverythingThresholds = field(default_factory=EverythingThresholds)
    box_masks: bool = False
    """Whether a box without a mask prompt goes in as a filled mask as well, as the model was trained."""
    mask_choice: str = "best"
    """Which mask a prompt gets, one of `MASK_CHOICES`."""
    cleaning: Cleaning = field(default_factory=Cleaning)
    """What `tinysam-run` removes from masks."""
    zoom_in: ZoomIn = field(default_factory=ZoomIn)
    """How `tinysam-run` looks closer at small objects."""
    source: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """The manifest as json.dump takes it."""
        listed: dict[str, Any] = json.loads(json.dumps({"schema": self.schema} | asdict(self) | {"labels": LABELS}))
        return listed

    def engines_with(self, precisions: Collection[str]) -> tuple[str, ...]:
        """The engines that there are files for, of all these precisions, the default first."""
        have = {engine: {file.precision for file in self.files if file.engine == engine} for engine in FORMATS}
        return tuple(engine for engine, found in have.items() if found and found.issuperset(precisions))

    def find(self, part: str, engine: str, precision: str) -> ModelFile:
        """The file of that kind; ArtifactError naming what there is if there is none."""
        for file in self.files:
            if (file.part, file.engine, file.precision) == (part, engine, precision):
                return file
        have = ", ".join(sorted({f"{f.engine} {f.precision}" for f in self.files})) or "nothing"
        raise ArtifactError(
            f"{self.variant}-{self.image_size} has no {part} for backend {engine}, precision {precision}; "
            f"it has {have}: choose one of these, or export the model with others"
        )
