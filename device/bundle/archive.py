"""One archive for one kind of device: contents, hashes, instructions, packed to a single file."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tinysam.device.arm.root import RELEASES
from tinysam.device.arm.wheels import download
from tinysam.device.bundle.contents import copy_model, write_self_test
from tinysam.device.bundle.site import build_site
from tinysam.device.bundle.wheel import build_wheel, project_version
from tinysam.runtime.engines.formats import FORMATS, TFLITE
from tinysam.runtime.manifest import Manifest, read_manifest

SCHEMA = 1
"""Version of bundle.json."""
TARGETS = ("raspberrypi", "android", "web")
PYTHONS = tuple(release.python for release in RELEASES.values())
"""Pythons that an offline wheelhouse serves."""
TEMPLATES = Path(__file__).with_name("templates")
LICENSE = Path(__file__).resolve().parents[2] / "LICENSE"


@dataclass(frozen=True)
class Choice:
    """What to put into a bundle.

    Raises:
        ValueError: an unknown target, or a choice that the target cannot follow.
    """

    target: str
    """`raspberrypi`, `android` or `web`."""
    artifacts: Path
    """Artifact folder of the model."""
    precisions: Sequence[str] = ("int8",)
    engines: Sequence[str] = ()
    """Engines, the installer's default first; none named: all that the model has files of these precisions for."""
    with_wheels: bool = False
    """Include an aarch64 wheelhouse, so that the device needs no network."""

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(f"target {self.target!r}: choose from {', '.join(TARGETS)}")
        if self.target == "web" and self.with_wheels:
            raise ValueError("target web runs no Python: leave out --with-wheels")
        if self.target == "web" and self.engines and TFLITE.name not in self.engines:
            raise ValueError("target web runs the TFLite files: leave out --backend")


def build_bundle(choice: Choice, out: Path) -> Path:
    """Build the archive `tinysam-<variant>-<size>-<target>.tar.gz` in the folder `out` and return its path.

    The archive is written beside its final place and moved there when complete.

    Raises:
        FileNotFoundError, ArtifactError: the artifacts cannot be used.
        BuildError: the runtime wheel or the web page could not be built.
        WheelsUnavailable: the wheelhouse could not be downloaded.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".bundle-") as work:
        folder = Path(work) / "bundle"
        folder.mkdir()
        if choice.target == "web":
            manifest = build_site(choice.artifacts, folder / "site", precisions=choice.precisions)
            shutil.copytree(TEMPLATES / "web", folder, dirs_exist_ok=True)
        else:
            choice = _with_engines(choice)
            manifest = _fill_device(choice, folder)
        if LICENSE.is_file():
            shutil.copyfile(LICENSE, folder / "LICENSE")
        name = f"tinysam-{manifest.variant}-{manifest.image_size}-{choice.target}"
        _describe(choice, manifest, folder)
        root = folder.rename(Path(work) / name)
        packed = _pack(root, Path(work) / f"{name}.tar.gz")
        return packed.replace(out / packed.name)


def _with_engines(choice: Choice) -> Choice:
    """The choice with engines named: every engine if none has these precisions, which then says what there is."""
    having = read_manifest(choice.artifacts).engines_with(choice.precisions)
    return replace(choice, engines=choice.engines or tuple(reversed(having or tuple(FORMATS))))


def _fill_device(choice: Choice, folder: Path) -> Manifest:
    manifest = copy_model(choice.artifacts, folder / "model", choice.engines, choice.precisions)
    write_self_test(folder, choice.engines, choice.precisions)
    build_wheel(folder / "wheels")
    if choice.with_wheels:
        for python in PYTHONS:
            download(python, folder / "wheelhouse" / python, tuple(choice.engines))
    shutil.copytree(TEMPLATES / "common", folder, dirs_exist_ok=True)
    shutil.copytree(TEMPLATES / choice.target, folder, dirs_exist_ok=True)
    if choice.target == "android":
        build_site(choice.artifacts, folder / "page", precisions=choice.precisions, single=True)
    return manifest


def _describe(choice: Choice, manifest: Manifest, folder: Path) -> None:
    """Write bundle.json, and SHA256SUMS over every other file."""
    description = {
        "schema": SCHEMA,
        "target": choice.target,
        "tinysam_edge": project_version(),
        "model": f"{manifest.variant}-{manifest.image_size}",
        "model_schema": manifest.schema,
        "engines": list(choice.engines) if choice.target != "web" else ["litert.js"],
        "precisions": list(choice.precisions),
        "wheelhouse": list(PYTHONS) if choice.with_wheels else [],
    }
    (folder / "bundle.json").write_text(json.dumps(description, indent=2) + "\n")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}" for path in files]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")


def _pack(root: Path, archive: Path) -> Path:
    """A tar.gz whose bytes depend on the contents only: sorted names, no owners, no times."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() or entry.name.endswith(".sh") else 0o644
        return entry

    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, 0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in sorted(root.rglob("*")):
            tar.add(path, path.relative_to(root.parent).as_posix(), recursive=False, filter=plain)
    return archive
