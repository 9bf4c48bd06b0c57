"""What an export is asked to do, checked before anything is computed."""

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from tinysam.calibration.ranges import METHODS
from tinysam.export.errors import ExportError
from tinysam.models.variants import Variant, check_image_size, exported_variants
from tinysam.runtime.manifest import ENGINES, PRECISIONS

TARGETS = ("arm", "x86")
RANGES = (*METHODS, "search")
TOOLS = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxsim",
    "onnxruntime",
    "onnx2tf",
    "tensorflow",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "numpy",
)
"""Packages whose versions decide what comes out."""


@dataclass(frozen=True)
class ExportSettings:
    """The options of one export."""

    variant: Variant
    checkpoint: Path | None
    """The user's checkpoint; None for the embedded weights."""
    image_size: int
    precisions: tuple[str, ...]
    """`fp32`, `int8`, or both."""
    formats: tuple[str, ...]
    """`onnx`, `tflite`, or both."""
    target: str
    """`arm` (signed activations) or `x86` (unsigned activations): decides the INT8 ONNX files."""
    calib: Path | None
    """The user's photographs; None for the bundled ones."""
    calib_count: int
    out: Path
    seed: int = 0
    least_mask_iou: float = 0.7
    """Mean IoU with PyTorch's masks below which INT8 files are not published."""
    ranges: str = "mse"
    """How INT8 ranges are found, one of `RANGES`."""
    max_drop: float | None = None
    """Points of mean IoU that INT8 may lose; blocks stay float until it does not lose more."""

    def __post_init__(self) -> None:
        if not 0 <= self.least_mask_iou <= 1:
            raise ExportError(f"least mask IoU {self.least_mask_iou}: expected 0 to 1")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ExportError(f"largest drop {self.max_drop}: expected 0 to 100 points of mean IoU")
        if self.variant.teacher_only:
            raise ExportError(
                f"{self.variant.name} is a teacher, too large for the edge: choose {', '.join(exported_variants())}"
            )
        check_image_size(self.variant, self.image_size)
        for what, given, known in (
            ("precision", self.precisions, PRECISIONS),
            ("format", self.formats, ENGINES),
            ("target", (self.target,), TARGETS),
            ("ranges", (self.ranges,), RANGES),
        ):
            unknown = [value for value in given if value not in known]
            if unknown or not given:
                raise ExportError(f"{what} {','.join(unknown) or 'empty'}: expected {' or '.join(known)}")

    @property
    def folder(self) -> Path:
        """Where the artifacts go."""
        return self.out / f"{self.variant.name}-{self.image_size}"

    @property
    def mask_tokens(self) -> tuple[int, ...]:
        """Mask tokens that were trained and are therefore offered."""
        return (0, 1, 2, 3) if self.variant.single_mask else (1, 2, 3)


def tool_versions() -> dict[str, str]:
    """Installed versions of the packages that decide what comes out."""
    return {name: version(name) for name in TOOLS}


def fingerprint(settings: ExportSettings, checkpoint_sha256: str, images_sha256: str) -> str:
    """Hash of everything that decides the artifacts: options, weights, images, tools, and this project's code."""
    options = asdict(settings)
    for name in ("checkpoint", "out", "calib"):
        del options[name]
    facts = [options, checkpoint_sha256, images_sha256, tool_versions(), code_sha256()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def code_sha256() -> str:
    """Hash of the source files that an export runs."""
    import tinysam.calibration
    import tinysam.export
    import tinysam.models

    digest = hashlib.sha256()
    for package in (tinysam.models, tinysam.export, tinysam.calibration):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
