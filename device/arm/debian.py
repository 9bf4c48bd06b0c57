"""Debian packages of any architecture, unpacked into a folder without root and without touching the host's dpkg."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR_VARIABLE = "DEBIAN_MIRROR"
MERGED_FOLDERS = ("bin", "sbin", "lib")


class DebianUnavailable(RuntimeError):
    """Debian packages cannot be had on this machine; the message says why."""


def mirror() -> str:
    """The Debian mirror this machine is set up for, or the one named in the environment as `DEBIAN_MIRROR`."""
    if named := os.environ.get(MIRROR_VARIABLE):
        return named.rstrip("/")
    for tool in ("apt-get", "dpkg"):
        if not shutil.which(tool):
            raise DebianUnavailable(f"{tool} is not installed: arm64 packages need a Debian or Ubuntu host")
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)"], capture_output=True, text=True, check=False
    )
    for line in listing.stdout.splitlines():
        label, _, uri = line.partition("|")
        if label == "Debian":
            return uri.rstrip("/")
    raise DebianUnavailable(
        f"no Debian mirror among apt's sources: set {MIRROR_VARIABLE} to one (on Debian, run `apt-get update` once)"
    )


def unpack_packages(packages: tuple[str, ...], suite: str, architecture: str, root: Path) -> None:
    """Download packages with everything they depend on and unpack them all into `root`.

    apt works on a state of its own below `root` (its lists, an empty package status), so that it plans for a bare
    machine of the given suite and architecture; no maintainer script runs.

    Args:
        packages: names to install.
        suite: Debian release, such as `bookworm`.
        architecture: Debian's name for it, such as `arm64`.
        root: folder to unpack into; made if absent.

    Raises:
        DebianUnavailable: no mirror, no apt, or a download that failed; the message holds apt's first line.
    """
    source, root = mirror(), root.resolve()
    for name in MERGED_FOLDERS:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    apt = _private_apt(root / "apt", source, suite, architecture)
    _run([*apt, "update"], f"the package list of {suite}/{architecture}")
    options = ["--yes", "--download-only", "--no-install-recommends"]
    _run([*apt, *options, "install", *packages], f"{' '.join(packages)} ({suite}/{architecture})")
    for deb in sorted((root / "apt" / "cache" / "archives").glob("*.deb")):
        _unpack(deb, root)
    shutil.rmtree(root / "apt")


def _private_apt(folder: Path, source: str, suite: str, architecture: str) -> list[str]:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").write_text("")
    signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
    (folder / "sources.list").write_text(f"deb [arch={architecture}{signed}] {source} {suite} main\n")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "Dir::State": folder / "state",
        "Dir::State::Lists": folder / "state/lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "APT::Sandbox::User": "",
        "APT::Keep-Downloaded-Packages": "true",
        "Acquire::Languages": "none",
        "DPkg::Post-Invoke": "",
        "APT::Update::Error-Mode": "any",
        "APT::Update::Post-Invoke": "",
    }
    command = ["apt-get", "-qq"]
    for key, value in settings.items():
        command += ["-o", f"{key}={value}"]
    return command


def _unpack(deb: Path, root: Path) -> None:
    """Unpack one package; paths below /bin, /sbin and /lib land in /usr, as on a merged-usr system.

    dpkg would put a real folder where the link stands, so its tar stream goes through tar, which keeps links.
    """
    extract = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root), "-f", "-"]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as stream:
        extracted = subprocess.run(extract, stdin=stream.stdout, capture_output=True, text=True, check=False)
    if stream.returncode != 0 or extracted.returncode != 0:
        raise DebianUnavailable(f"cannot unpack {deb.name}: {extracted.stderr.strip() or 'dpkg-deb failed'}")


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise DebianUnavailable(f"cannot get {what}: {lines[0] if lines else f'apt-get exited {done.returncode}'}")
