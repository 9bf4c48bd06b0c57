"""The last step of `make export-int8`: the real command on a bundled photograph, with every exported engine."""

import argparse
import sys
from pathlib import Path

from tinysam.calibration.photographs import bundled_photographs
from tinysam.models.variants import get_variant
from tinysam.runtime.cli import main as tinysam_run
from tinysam.runtime.manifest import ENGINES, read_manifest

PHOTOGRAPH = "astronaut"
PROMPTS = ("--box", "150,0,330,200", "--point", "235,100")
"""Around the head, in pixels of that photograph."""


def run(folder: Path, out: Path) -> int:
    """Segments the photograph with each engine of the artifacts; the first exit code that is not 0, or 0."""
    photograph = next(path for path in bundled_photographs() if path.stem == PHOTOGRAPH)
    engines = [name for name in ENGINES if any(file.engine == name for file in read_manifest(folder).files)]
    for engine in engines:
        arguments = ["--model", str(folder), "--backend", engine, *PROMPTS, "--timing", "--out", str(out / engine)]
        print(f"\n$ tinysam-run {' '.join(arguments)} {photograph.name}", flush=True)
        if code := tinysam_run([*arguments, str(photograph)]):
            return code
    print(f"\nThe overlay is {out / engines[0] / (PHOTOGRAPH + '.overlay.jpg')}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of `python -m tinysam.export.demo`."""
    options = argparse.ArgumentParser(prog="python -m tinysam.export.demo", description=__doc__)
    options.add_argument("--variant", default="nano")
    options.add_argument("--size", type=int)
    options.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    options.add_argument("--out", type=Path, default=Path("out"))
    arguments = options.parse_args(argv)
    size = arguments.size or get_variant(arguments.variant).image_size
    return run(arguments.artifacts / f"{arguments.variant}-{size}", arguments.out)


if __name__ == "__main__":
    sys.exit(main())
