"""The manifest of an artifact folder: what every file is. Format: docs/artifacts.md.

`records` holds the data classes, `parse` checks the fields, `storage` reads and writes. Only the standard library is
imported here, so that the exporter, the calibration and the device share one definition. After an edit by hand,
`python -m tinysam.runtime.manifest FOLDER --rehash` makes the manifest valid again.
"""

from tinysam.runtime.manifest.parse import manifest_from_dict
from tinysam.runtime.manifest.records import (
    ENGINES,
    INPUTS,
    LAYOUTS,
    MASK_CHOICES,
    PARTS,
    PRECISIONS,
    SCHEMA,
    STRIDE,
    Cleaning,
    EverythingThresholds,
    Manifest,
    ModelFile,
    Signature,
    TensorSpec,
    ZoomIn,
)
from tinysam.runtime.manifest.storage import (
    FILE_NAME,
    HASH_FIELD,
    read_manifest,
    rehash_manifest,
    sealed,
    sha256_file,
    verify_file,
    write_manifest,
)

__all__ = [
    "ENGINES",
    "FILE_NAME",
    "HASH_FIELD",
    "INPUTS",
    "LAYOUTS",
    "MASK_CHOICES",
    "PARTS",
    "PRECISIONS",
    "SCHEMA",
    "STRIDE",
    "Cleaning",
    "EverythingThresholds",
    "Manifest",
    "ModelFile",
    "Signature",
    "TensorSpec",
    "ZoomIn",
    "manifest_from_dict",
    "read_manifest",
    "rehash_manifest",
    "sealed",
    "sha256_file",
    "verify_file",
    "write_manifest",
]
