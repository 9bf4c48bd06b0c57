"""One way to open a model, whatever runs it."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tinysam.runtime.engines.formats import DEFAULT, FORMATS
from tinysam.runtime.manifest import sha256_file
from tinysam.runtime.quiet import quiet_native
from tinysam.runtime.segmenter import Segmenter

BACKENDS = (*FORMATS, "torch")


def run_quietly(segmenter: Segmenter) -> None:
    """Runs both graphs once: LiteRT announces its delegate then, which would break the line of progress."""
    with quiet_native():
        segmenter.set_image(Image.new("RGB", (8, 8)))
        segmenter.predict([(4, 4)], [1])
    segmenter.reset_image()


@dataclass(frozen=True)
class ModelChoice:
    """Which model on which backend."""

    backend: str = DEFAULT
    artifacts: Path | None = None
    """Artifact folder, for every backend but torch."""
    precision: str = "int8"
    variant: str = "nano"
    """For torch."""
    checkpoint: Path | None = None
    """For torch; None takes the embedded weights."""
    image_size: int | None = None
    """For torch; None takes the variant's."""
    threads: int = 1

    def open(self) -> Segmenter:
        """The model, ready for `set_image`."""
        if self.backend == "torch":
            from tinysam.evaluation.torch_engine import TorchSegmenter

            return TorchSegmenter(self.variant, self.checkpoint, self.image_size, self.threads)
        segmenter = Segmenter(self.artifacts, self.backend, self.precision, self.threads)
        if FORMATS[self.backend].announces:
            run_quietly(segmenter)
        return segmenter

    def identity(self) -> dict[str, str]:
        """What the results depend on: hashes of the files that will run, not their paths."""
        if self.backend == "torch":
            from tinysam.models import get_variant
            from tinysam.models.checkpoint import weights_path

            path = weights_path(get_variant(self.variant), self.checkpoint)
            if not path.is_file():
                raise FileNotFoundError(f"checkpoint {path}: no such file")
            digest = sha256_file(path)
            return {"backend": "torch", "model": self.variant, "sha256": digest, "image_size": str(self.image_size)}
        graphs = Segmenter(self.artifacts, self.backend, self.precision, self.threads).graphs
        files = {part: graphs.manifest.find(part, self.backend, self.precision) for part in ("encoder", "decoder")}
        name = f"{graphs.manifest.variant}-{graphs.manifest.image_size}"
        hashes = {part: file.sha256 for part, file in files.items()}
        return {"backend": self.backend, "precision": self.precision, "model": name, **hashes}
