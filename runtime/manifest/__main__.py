"""`python -m tinysam.runtime.manifest`: checks the manifest of a folder; `--rehash` accepts an edit by hand."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest.storage import read_manifest, rehash_manifest


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m tinysam.runtime.manifest`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tinysam.runtime.manifest", description="Check the manifest of a model.")
    parser.add_argument("folder", type=Path, help="artifact folder")
    parser.add_argument("--rehash", action="store_true", help="accept what was edited by hand")
    options = parser.parse_args(arguments)
    try:
        if options.rehash:
            rehash_manifest(options.folder)
        manifest = read_manifest(options.folder)
    except (ArtifactError, OSError) as error:
        print(f"tinysam.runtime.manifest: error: {error}", file=sys.stderr)
        return 1
    print(f"{options.folder}: {manifest.variant}-{manifest.image_size}, {len(manifest.files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
