"""What an export is asked to do, checked before anything is computed."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tinysam.calibration.ranges import METHODS
from tinysam.export.errors import ExportError
from tinysam.models.variants import Variant, check_image_size, exported_variants
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.manifest import PRECISIONS

TARGETS = ("arm", "x86")
RANGES = (*METHODS, "search")
MAX_DROP = 0.5
"""Points of mean IoU that INT8 may lose unless more is allowed."""
LEAST_MASK_IOU = 0.95
"""Mean IoU with the fp32 masks that INT8 has to keep unless less is allowed."""
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
    """Some of `fp32`, `fp16`, `int8`."""
    formats: tuple[str, ...]
    """`onnx`, `tflite`, or both."""
    target: str
    """`arm` (signed activations) or `x86` (unsigned activations): decides the INT8 ONNX files."""
    calib: Path | None
    """The user's photographs; None for the bundled ones."""
    calib_count: int
    out: Path
    seed: int = 0
    least_mask_iou: float = LEAST_MASK_IOU
    """Mean IoU with the fp32 masks that INT8 has to keep in every engine."""
    ranges: str = "mse"
    """How INT8 ranges are found, one of `RANGES`."""
    max_drop: float | None = MAX_DROP
    """Points of mean IoU that INT8 may lose; blocks stay float until it does not lose more. None: whatever it loses."""

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
            ("format", self.formats, tuple(FORMATS)),
            ("target", (self.target,), TARGETS),
            ("ranges", (self.ranges,), RANGES),
        ):
            unknown = [value for value in given if value not in known]
            if unknown or not given:
                raise ExportError(f"{what} {','.join(unknown) or 'empty'}: expected {' or '.join(known)}")
        for precision in self.precisions:
            if not self.formats_with(precision):
                able = " or ".join(name for name, form in FORMATS.items() if precision in form.precisions)
                raise ExportError(
                    f"precision {precision}: {','.join(self.formats)} files have none; add --format {able}"
                )

    @property
    def has_smaller(self) -> bool:
        """Whether files smaller than fp32 are asked for; they are calibrated."""
        return set(self.precisions) != {"fp32"}

    def formats_with(self, precision: str) -> tuple[str, ...]:
        """Those of the formats that have a precision."""
        return tuple(name for name in self.formats if name in FORMATS and precision in FORMATS[name].precisions)

    @property
    def has_half(self) -> bool:
        """Whether any of the smaller files may compute in fp16: ONNX files for x86 have none of it."""
        return self.target == "arm" or bool(self.formats_with("fp16"))

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


def code_sha256(start: str = "tinysam.export.pipeline") -> str:
    """Hash of the source files that an export runs: `start` and all that it imports of this project."""
    digest = hashlib.sha256()
    for name, path in sorted(imported_sources(start).items()):
        digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()


def imported_sources(start: str) -> dict[str, Path]:
    """Module -> source file of a module and of everything that it imports of the same package, however deep."""
    package, *_ = start.split(".")
    imports = re.compile(rf"^\s*(?:from|import) ({package}[\w.]*)(?: import (\([^)]*\)|.*))?", re.MULTILINE)
    quoted = re.compile(rf'"({package}\.[\w.]+)"')  # drivers of engines are named in strings
    found: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        path = source_of(name)
        if name in found or path is None:
            continue
        found[name] = path
        text = path.read_text(encoding="utf-8")
        waiting += [name.rpartition(".")[0] or package, *quoted.findall(text)]
        for module, names in imports.findall(text):
            waiting += [module, *(f"{module}.{part}" for part in re.findall(r"\w+", names))]
    return found


def source_of(module: str) -> Path | None:
    """Source file of a module; None if there is none of that name."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None
