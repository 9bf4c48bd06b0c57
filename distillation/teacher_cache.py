"""The teacher's embeddings of whole photographs on disk, fp16, each with the hash of its bytes.

A folder holds `<key>.npy` and `<key>.sha256` per photograph; the key is the hash of teacher, input size and the
photograph's file. A damaged or half-written entry is computed again.
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tinysam.datasets.coco import Photo
from tinysam.distillation.checkpoints import write_atomically
from tinysam.distillation.making import whole_pixels
from tinysam.models import Sam, normalize
from tinysam.runtime.manifest import sha256_file


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
