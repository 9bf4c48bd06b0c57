"""The command `tinysam-bundle`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tinysam.device.arm.wheels import WheelsUnavailable
from tinysam.device.bundle.archive import TARGETS, Choice, build_bundle
from tinysam.device.bundle.contents import PRECISIONS
from tinysam.device.bundle.wheel import BuildError
from tinysam.runtime.cli import add_version
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.locate import find_artifacts

ENGINES = {**{name: (name,) for name in reversed(FORMATS)}, "both": tuple(reversed(FORMATS))}


def main(arguments: list[str] | None = None) -> int:
    """Parse, build, print the archive's path; errors are one line on stderr and exit status 1."""
    options = _parser().parse_args(arguments)
    try:
        choice = Choice(
            target=options.target,
            artifacts=find_artifacts(options.model),
            precisions=PRECISIONS[options.precision],
            engines=ENGINES[options.backend] if options.backend else (),
            with_wheels=options.with_wheels,
        )
        archive = build_bundle(choice, options.out)
    except (ValueError, BuildError, WheelsUnavailable, ImportError, OSError) as error:
        print(f"tinysam-bundle: {error}", file=sys.stderr)
        return 1
    print(f"{archive} ({archive.stat().st_size / 1e6:.1f} MB)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tinysam-bundle", description="Pack a model, the thin runtime and an installer into one archive."
    )
    add_version(parser)
    parser.add_argument("--target", required=True, choices=TARGETS)
    parser.add_argument("--model", type=Path, metavar="DIR", help="artifact folder (default: as tinysam-run finds it)")
    parser.add_argument("--precision", choices=PRECISIONS, default="int8", help="default: int8")
    parser.add_argument(
        "--backend", choices=ENGINES, help="engines of the installer (default: all that the model has such files for)"
    )
    parser.add_argument("--with-wheels", action="store_true", help="include aarch64 wheels for Python 3.11 and 3.13")
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR", help="default: dist")
    return parser


if __name__ == "__main__":
    sys.exit(main())
