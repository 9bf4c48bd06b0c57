"""Builds the web page alone: `python -m tinysam.device.bundle.page_cli dist/web --precision both`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tinysam.device.bundle.cli import PRECISIONS
from tinysam.device.bundle.site import build_site
from tinysam.device.bundle.wheel import BuildError
from tinysam.runtime.locate import find_artifacts


def main(arguments: list[str] | None = None) -> int:
    """Parse, build, print the folder; errors are one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m tinysam.device.bundle.page_cli", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write; replaced if it exists")
    parser.add_argument("--model", type=Path, metavar="DIR", help="artifact folder (default: as tinysam-run finds it)")
    parser.add_argument("--precision", choices=PRECISIONS, default="int8", help="default: int8")
    parser.add_argument("--single", action="store_true", help="one HTML file that works offline, from a disk")
    options = parser.parse_args(arguments)
    try:
        precisions = PRECISIONS[options.precision]
        build_site(find_artifacts(options.model), options.out, precisions=precisions, single=options.single)
    except (ValueError, BuildError, OSError) as error:
        print(f"web: {error}", file=sys.stderr)
        return 1
    print(options.out / "tinysam.html" if options.single else options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
