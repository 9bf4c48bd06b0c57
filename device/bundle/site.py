"""The web page, built by the Node scripts of `web/` around a model's files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tinysam.device.bundle.wheel import BuildError
from tinysam.runtime.manifest import Manifest, read_manifest

WEB = Path(__file__).resolve().parents[2] / "web"


def build_site(artifacts: Path, out: Path, *, precisions: Sequence[str] = ("int8",), single: bool = False) -> Manifest:
    """Build the page into the new folder `out`: a static site, or with `single` one self-contained HTML file.

    Raises:
        BuildError: not in a source checkout, no Node, or the build failed; the message says what to do.
        FileNotFoundError, ArtifactError: the artifacts cannot be used.
    """
    manifest = read_manifest(artifacts)
    for precision in precisions:
        manifest.find("encoder", "tflite", precision)
    if not (WEB / "package.json").is_file():
        raise BuildError(f"the web page is built from a source checkout; there is none at {WEB}")
    if not shutil.which("npm"):
        raise BuildError("the web page needs Node.js 18 or newer: install nodejs and npm")
    if not (WEB / "node_modules").is_dir():
        _run(["npm", "ci", "--no-audit", "--no-fund", "--silent"])
    command = ["node", "build.mjs", f"--artifacts={artifacts.resolve()}", f"--out={out.resolve()}"]
    _run([*command, f"--precisions={','.join(precisions)}", *(["--single"] if single else [])])
    return manifest


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise BuildError(f"{' '.join(command[:2])}: {lines[-1]}")
