"""The manifest and its files on disk.

1. `write_manifest` writes `manifest.json` with the SHA-256 of its own text;
2. `read_manifest` refuses a text that was changed since, and parses it;
3. `verify_file` compares a model file with the size and SHA-256 that the manifest states, before an engine reads it;
4. `rehash_manifest` accepts an edit by hand.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from tinysam.runtime.atomic import write_atomically
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest.parse import check_schema, get_field, manifest_from_dict
from tinysam.runtime.manifest.records import Manifest, ModelFile

FILE_NAME = "manifest.json"
HASH_FIELD = "content_sha256"
"""SHA-256 of the manifest's own text, in which 64 zeros stand for the hash."""
_NO_HASH = "0" * 64

_MAX_BYTES = 4 << 20
_HASH_CHUNK_BYTES = 1 << 20


def read_manifest(folder: Path | str) -> Manifest:
    """Reads and checks `folder/manifest.json`.

    Raises:
        FileNotFoundError: there is no such folder or manifest.
        ArtifactError: the manifest is damaged, of another schema, or contradicts itself.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"no artifacts at {folder}: {FILE_NAME} is missing; make them with `make export-int8`")
    if path.stat().st_size > _MAX_BYTES:
        raise ArtifactError(f"{path} is larger than {_MAX_BYTES} bytes: not a manifest; export the model again")
    try:
        text = path.read_bytes().decode()
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}); export the model again") from error
    try:
        check_schema(data)
        _check_content(text, data)
        return manifest_from_dict(data)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def write_manifest(manifest: Manifest, folder: Path | str) -> Path:
    """Writes `folder/manifest.json`, whole or not at all; returns its path."""
    return _write(manifest.to_dict(), Path(folder) / FILE_NAME)


def rehash_manifest(folder: Path | str) -> Path:
    """Makes a manifest that was edited by hand valid again; returns its path.

    Raises:
        FileNotFoundError: there is no manifest.
        ArtifactError: a field is missing or out of range.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"no {FILE_NAME} in {folder}")
    try:
        data = json.loads(path.read_bytes())
        manifest_from_dict(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not valid JSON ({error})") from error
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    return _write(data, path)


def sealed(data: dict[str, Any]) -> str:
    """The text of a manifest with the hash of its content."""
    text = json.dumps({**data, HASH_FIELD: _NO_HASH}, indent=2) + "\n"
    return text.replace(_NO_HASH, _sha256(text))


def _write(data: dict[str, Any], path: Path) -> Path:
    write_atomically(path, sealed(data))
    return path


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check_content(text: str, data: Any) -> None:
    """ArtifactError if a byte of the manifest is not what was written."""
    stated = get_field(data, HASH_FIELD, str)
    if len(stated) != len(_NO_HASH) or _sha256(text.replace(stated, _NO_HASH)) != stated:
        raise ArtifactError(
            "was changed after it was written; export the model again, or if the change is meant: "
            "python -m tinysam.runtime.manifest FOLDER --rehash"
        )


def sha256_file(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def verify_file(folder: Path | str, file: ModelFile) -> Path:
    """Path of a model file whose size and SHA-256 are what the manifest says.

    Raises:
        FileNotFoundError: the file is missing.
        ArtifactError: size or hash differ.
    """
    path = Path(folder) / file.path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is named in the manifest but missing; export the model again")
    size = path.stat().st_size
    if size != file.size_bytes:
        raise ArtifactError(f"{path} has {size} bytes, the manifest says {file.size_bytes}; export the model again")
    digest = sha256_file(path)
    if digest != file.sha256:
        raise ArtifactError(
            f"{path} is damaged: its SHA-256 is {digest[:12]}..., the manifest says {file.sha256[:12]}...; "
            "export the model again"
        )
    return path
