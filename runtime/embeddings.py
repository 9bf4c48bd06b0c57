"""Embeddings on disk: a photograph is encoded once and answers prompts later, in another process, without the encoder.

A file is a NumPy archive (npz, no pickles) with

- `embedding` (1, 256, grid, grid), float32, or float16 at half the size;
- `original_size` (height, width) of the photograph and `image_size` of the model;
- `encoder_sha256` of the encoder's file and `image_sha256` of the photograph as the encoder took it: an
  embedding of another model or photograph is refused.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.atomic import open_atomically
from tinysam.runtime.contract import EMBED_DIM
from tinysam.runtime.errors import ArtifactError, ImageError

Floats = NDArray[np.float32]

DTYPES = ("float32", "float16")
_FIELDS = {"embedding", "original_size", "image_size", "encoder_sha256", "image_sha256"}
_MOST_OVERHEAD_BYTES = 1 << 16
_MOST_GRID = 256


@dataclass(frozen=True)
class KeptEmbedding:
    """What a file holds."""

    embedding: Floats
    """(1, 256, grid, grid)."""
    original_size: tuple[int, int]
    """(height, width) of the photograph."""
    image_size: int
    encoder_sha256: str
    image_sha256: str


def image_sha256(pixels: NDArray[Any], original_size: tuple[int, int]) -> str:
    """Hash of a photograph as the encoder sees it: (h, w, 3) pixels in the model's size, and the photograph's size."""
    digest = hashlib.sha256(repr((original_size, pixels.shape, str(pixels.dtype))).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def write_embedding(kept: KeptEmbedding, path: Path, dtype: str) -> None:
    """Writes the file, whole or not at all.

    Raises:
        ValueError: another `dtype` than float32 or float16.
        OutputError: the file cannot be written.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    with open_atomically(path) as stream:
        np.savez(
            stream,
            embedding=kept.embedding.astype(dtype),
            original_size=np.array(kept.original_size, np.int64),
            image_size=np.array(kept.image_size, np.int64),
            encoder_sha256=np.array(kept.encoder_sha256),
            image_sha256=np.array(kept.image_sha256),
        )


def read_embedding(path: Path) -> KeptEmbedding:
    """Reads a file; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ArtifactError: it is damaged, or no embedding.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no embedding at {path}: make one with save_embedding")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > 4 * EMBED_DIM * _MOST_GRID**2 + _MOST_OVERHEAD_BYTES:
            raise ValueError(f"{size} bytes are too many")
        with np.load(path, allow_pickle=False) as arrays:
            if set(arrays.files) != _FIELDS:
                raise ValueError(f"it holds {sorted(arrays.files)}")
            found = {name: arrays[name] for name in _FIELDS}
        return _check(found)
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ArtifactError(f"{path} is not an embedding ({reason}): encode the photograph again") from error


def check_owner(kept: KeptEmbedding, path: Path, encoder_sha256: str, photograph: str | None) -> None:
    """Raises for an embedding of another model or photograph; `photograph` is its `image_sha256`, None: not compared.

    Raises:
        ArtifactError: another encoder made it.
        ImageError: it shows another photograph.
    """
    if kept.encoder_sha256 != encoder_sha256:
        raise ArtifactError(f"{path} was made by another encoder than this model's: encode the photograph again")
    if photograph is not None and kept.image_sha256 != photograph:
        raise ImageError(f"{path} is the embedding of another photograph: encode this one again")


def _check(found: dict[str, NDArray[Any]]) -> KeptEmbedding:
    embedding, size = found["embedding"], found["original_size"]
    image_size = int(found["image_size"])
    grid = image_size // 16
    if embedding.shape != (1, EMBED_DIM, grid, grid) or embedding.dtype.name not in DTYPES:
        raise ValueError(f"an array of shape {embedding.shape} and type {embedding.dtype}")
    if size.shape != (2,) or size.dtype.kind != "i" or not (size >= 1).all() or (size > 1 << 20).any():
        raise ValueError(f"a photograph of size {size.tolist()}")
    if not np.isfinite(embedding).all():
        raise ValueError("its values are not finite")
    hashes = [str(found[name]) for name in ("encoder_sha256", "image_sha256")]
    return KeptEmbedding(embedding.astype(np.float32), (int(size[0]), int(size[1])), image_size, *hashes)
