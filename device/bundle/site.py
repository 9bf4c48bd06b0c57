"""The web page, built by the Node scripts of `web/` around a model's files.

Alone: `python -m tinysam.device.bundle.site dist/web --precision both`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tinysam.device.bundle.contents import PRECISIONS
from tinysam.device.bundle.wheel import BuildError
from tinysam.runtime.contract import check_contract
from tinysam.runtime.engines.formats import TFLITE
from tinysam.runtime.locate import find_artifacts
from tinysam.runtime.manifest import PARTS, Manifest, read_manifest

WEB = Path(__file__).resolve().parents[2] / "web"
INSTALLED = "node_modules/.package-lock.json"
"""npm writes it last."""


def build_site(artifacts: Path, out: Path, *, precisions: Sequence[str] = ("int8",), single: bool = False) -> Manifest:
    """Build the page into the new folder `out`: a static site, or with `single` one self-contained HTML file.

    Raises:
        BuildError: not in a source checkout, no Node, or the build failed; the message says what to do.
        FileNotFoundError, ArtifactError: the artifacts cannot be used.
    """
    manifest = read_manifest(artifacts)
    for precision in precisions:
        for part in PARTS:
            check_contract(manifest, manifest.find(part, TFLITE.name, precision))
    install_packages()
    options = [f"--artifacts={artifacts.resolve()}", f"--out={out.resolve()}", f"--precisions={','.join(precisions)}"]
    failure = _run("node", "build.mjs", *options, *(["--single"] if single else []))
    if failure:
        raise BuildError(f"node build.mjs: {failure[-1]}")
    return manifest


def install_packages() -> None:
    """Fetch the page's npm packages if they are not there yet.

    Raises:
        BuildError: not in a source checkout, no Node, or no network; the message says what to do.
    """
    if not (WEB / "package.json").is_file():
        raise BuildError(f"the web page is built from a source checkout; there is none at {WEB}")
    if not shutil.which("npm"):
        raise BuildError("the web page needs Node.js 18 or newer: install nodejs and npm")
    if (WEB / INSTALLED).is_file():
        return
    failure = _run("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error")
    if failure:
        raise BuildError(f"cannot fetch the page's npm packages, which takes a network once: {failure[0]}")


def _run(*command: str) -> list[str]:
    """What a program in `WEB` said if it failed, line by line; nothing if it succeeded."""
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    return (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]


def main(arguments: list[str] | None = None) -> int:
    """Parse, build, print the folder; errors are one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tinysam.device.bundle.site", description="Build the web page alone."
    )
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
