"""The teacher: any variant, frozen, at the student's input size; and its embeddings of whole photographs on disk.

The cache is a folder with `<key>.npy` (fp16) and `<key>.sha256` per photograph; the key is the hash of teacher, input
size and the photograph's file. A damaged or half-written entry is computed again.
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tinysam.datasets.coco import Photo
from tinysam.distillation.making import whole_pixels
from tinysam.models import Sam, get_variant, load, normalize
from tinysam.models.checkpoint import weights_path
from tinysam.runtime.atomic import write_atomically
from tinysam.runtime.manifest import sha256_file


class TeacherError(ValueError):
    """A teacher that cannot teach this student; the message is one line."""


def load_teacher(name: str, checkpoint: Path | None, image_size: int, device: str) -> Sam:
    """A teacher whose embedding has the student's shape.

    Raises:
        TeacherError: The teacher cannot take the student's input size, so its embedding has another shape.
        CheckpointError: Its weights cannot be read.
    """
    variant = get_variant(name)
    if variant.teacher_only and variant.image_size != image_size:
        theirs, ours = (side // variant.encoder.stride for side in (variant.image_size, image_size))
        raise TeacherError(
            f"teacher {name} makes embeddings of {theirs} x {theirs}, the student at {image_size} of {ours} x {ours}: "
            f"train with --image-size {variant.image_size}"
        )
    teacher = load(variant, checkpoint, image_size).to(device)
    return teacher.requires_grad_(False).eval()


def identity(name: str, checkpoint: Path | None) -> str:
    """Variant and SHA-256 of a teacher's weights; CheckpointError if it has none."""
    return f"{name} {sha256_file(weights_path(get_variant(name), checkpoint))}"


def check_embedding(student: torch.Tensor, teacher: torch.Tensor) -> None:
    """TeacherError if the two embeddings have different shapes."""
    if student.shape[1:] != teacher.shape[1:]:
        raise TeacherError(
            f"the teacher's embedding is {tuple(teacher.shape[1:])}, the student's {tuple(student.shape[1:])}: "
            "they must have the same channels and grid"
        )


def copy_decoder(student: Sam, teacher: Sam) -> None:
    """Gives the student the teacher's prompt encoder and mask decoder, frozen (MobileSAM).

    Raises:
        TeacherError: The decoders have different sizes.
    """
    try:
        student.prompt_encoder.load_state_dict(teacher.prompt_encoder.state_dict())
        student.mask_decoder.load_state_dict(teacher.mask_decoder.state_dict())
    except RuntimeError as error:
        wrong = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise TeacherError(f"the teacher's decoder does not fit the student: {wrong}") from error
    student.prompt_encoder.requires_grad_(False)
    student.mask_decoder.requires_grad_(False)


class TeacherCache:
    """Embeddings by number of the photograph.

    Args:
        folder: where entries are kept.
        teacher: on its device.
        identity: hash of the teacher's weights.
        photos: the set, in its order.
        keep: whether embeddings stay on the teacher's device once they were asked for.
    """

    def __init__(self, folder: Path, teacher: Sam, identity: str, photos: Sequence[Photo], keep: bool = False) -> None:
        self.folder, self.teacher, self.identity, self.photos = folder, teacher, identity, photos
        self.keep = keep
        self.keys: dict[int, str] = {}
        self.kept: dict[int, Tensor] = {}
        self.computed = 0
        """How many embeddings were not in the cache."""

    def key(self, index: int) -> str:
        """Name of a photograph's entry."""
        if index not in self.keys:
            text = f"{self.identity} {self.teacher.image_size} {sha256_file(self.photos[index].path)}"
            self.keys[index] = hashlib.sha256(text.encode()).hexdigest()
        return self.keys[index]

    def embeddings(self, indexes: Sequence[int]) -> Tensor:
        """(len(indexes), C, grid, grid) float32 on the teacher's device."""
        return torch.stack([self.placed(index) for index in indexes]).float()

    def placed(self, index: int) -> Tensor:
        """(C, grid, grid) float16 on the teacher's device."""
        if index in self.kept:
            return self.kept[index]
        found = torch.from_numpy(self.embedding(index)).to(self.device)
        if self.keep:
            self.kept[index] = found
        return found

    @property
    def device(self) -> torch.device:
        """The teacher's."""
        return next(self.teacher.parameters()).device

    def embedding(self, index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
        """(C, grid, grid) float16, from disk if it is there and sound."""
        key = self.key(index)
        entry, digest = self.folder / f"{key}.npy", self.folder / f"{key}.sha256"
        if entry.is_file() and digest.is_file():
            content = entry.read_bytes()
            if hashlib.sha256(content).hexdigest() == digest.read_text().strip():
                stored: np.ndarray[tuple[int, ...], np.dtype[np.float16]] = np.load(
                    io.BytesIO(content), allow_pickle=False
                )
                return stored
        return self.compute(index, entry, digest)

    def compute(self, index: int, entry: Path, digest: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
        """Asks the teacher, and keeps the answer."""
        pixels, (height, width) = whole_pixels(self.photos[index], self.teacher.image_size)
        x = normalize(torch.from_numpy(pixels).float().to(self.device))
        x[:, height:], x[:, :, width:] = 0, 0
        with torch.no_grad():
            made = self.teacher.encode(x[None])[0].half().cpu().numpy()
        buffer = io.BytesIO()
        np.save(buffer, made)
        write_atomically(entry, buffer.getvalue())
        write_atomically(digest, hashlib.sha256(buffer.getvalue()).hexdigest().encode())
        self.computed += 1
        return made
