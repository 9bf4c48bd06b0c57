"""What a file format has to offer to the exporter."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from tinysam.calibration.arrays import Floats
from tinysam.export.errors import ExportError
from tinysam.export.int8.part import Part
from tinysam.export.reference import ReferenceCase
from tinysam.models.sam import Sam
from tinysam.runtime.engines.formats import FileFormat


class Quantizer(ABC):
    """Writes smaller files of one part in one format, as often as asked; what they share is computed once."""

    form: ClassVar[FileFormat]

    def __init__(self, part: Part, half: bool) -> None:
        """`half`: whether float operations of INT8 files may compute in fp16, see `tinysam.export.int8.half`."""
        self.part, self.half = part, half

    def path(self, precision: str) -> Path:
        """Where the file of that precision goes."""
        return self.part.folder / self.form.file_name(self.part.name, precision)

    @abstractmethod
    def write_int8(self, keep_float: frozenset[str]) -> dict[str, Any]:
        """Writes the INT8 file with these ONNX nodes in float; what the manifest says of its quantization."""

    def write_half(self) -> None:
        """Writes the file with fp16 weights.

        Raises:
            ExportError: there are no such files in this format.
        """
        raise ExportError(f"precision fp16: {self.form.name} files have none")


class Writer(ABC):
    """Writes the files of one format."""

    form: ClassVar[FileFormat]
    tolerance: ClassVar[float]
    """Largest relative error of a float file to PyTorch."""
    quantizer: ClassVar[type[Quantizer]]

    @abstractmethod
    def write_encoder(self, sam: Sam, case: ReferenceCase, path: Path) -> None:
        """Writes the float encoder."""

    @abstractmethod
    def write_decoder(self, sam: Sam, mask_tokens: tuple[int, ...], case: ReferenceCase, path: Path) -> None:
        """Writes the float decoder with every signature of `tinysam.runtime.contract.signatures`."""


def tensors(arrays: Mapping[str, Floats]) -> dict[str, torch.Tensor]:
    """The same values as PyTorch tensors."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
