"""One way to open a model, whatever runs it: artifacts in their engines, or the PyTorch model.

All of them are `Segmenter`s: preprocessing, prompts and mask resizing are the same. Only the PyTorch model needs torch.
"""

from dataclasses import dataclass
from pathlib import Path

from tinysam.runtime.engines.formats import DEFAULT, FORMATS
from tinysam.runtime.graphs import Graphs, file_precision
from tinysam.runtime.locate import find_artifacts
from tinysam.runtime.manifest import PARTS, sha256_file
from tinysam.runtime.model import Model
from tinysam.runtime.segmenter import Segmenter

BACKENDS = (*FORMATS, "torch")


class ModelSegmenter(Segmenter):
    """A segmenter with a model that is open already."""

    def __init__(self, model: Model) -> None:
        self.graphs = model
        self.reset_image()


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
        """The model, ready for `set_image`; CheckpointError if a checkpoint does not fit the variant."""
        if self.backend == "torch":
            return self._open_torch()
        return ModelSegmenter(self._artifact_graphs().with_quiet_start())

    def _artifact_graphs(self) -> Graphs:
        return Graphs(find_artifacts(self.artifacts), self.backend, self.precision, self.threads)

    def _open_torch(self) -> Segmenter:
        import torch

        from tinysam.export.torch_model import TorchModel, manifest_of
        from tinysam.models import get_variant, load

        torch.set_num_threads(self.threads)
        variant = get_variant(self.variant)
        model = load(variant, self.checkpoint, self.image_size)
        return ModelSegmenter(TorchModel(model, manifest_of(variant, model.image_size)))

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
        graphs = self._artifact_graphs()
        find = graphs.manifest.find
        files = {part: find(part, self.backend, file_precision(self.precision, part)) for part in PARTS}
        name = f"{graphs.manifest.variant}-{graphs.manifest.image_size}"
        hashes = {part: file.sha256 for part, file in files.items()}
        return {"backend": self.backend, "precision": self.precision, "model": name, **hashes}
