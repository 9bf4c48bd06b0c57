"""Builds the wheel with a model inside: `python -m tinysam.device.bundle.wheel_cli dist --model artifacts/nano-448`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tinysam.device.bundle.wheel import BuildError, build_wheel
from tinysam.runtime.locate import find_artifacts


def main(arguments: list[str] | None = None) -> int:
    """Parse, build, print the wheel's path; errors are one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m tinysam.device.bundle.wheel_cli", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument(
        "--model", metavar="DIR", help="artifact folder, or none for no model inside (default: as tinysam-run finds it)"
    )
    options = parser.parse_args(arguments)
    try:
        wheel = build_wheel(options.out, None if options.model == "none" else find_artifacts(options.model))
    except (ValueError, BuildError, OSError) as error:
        print(f"wheel: {error}", file=sys.stderr)
        return 1
    print(f"{wheel} ({wheel.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
