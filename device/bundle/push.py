"""Copies a bundle to a device and starts the installation: a Raspberry Pi by ssh, Android by adb."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

ANDROID_FOLDER = "/sdcard/Download"
DAMAGED_BUNDLE = 3
"""Exit status of install.sh for a damaged bundle."""


class PushError(RuntimeError):
    """The bundle did not get to the device; the message says why and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Parse and push; errors are one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m tinysam.device.bundle.push", description=__doc__)
    parser.add_argument("target", choices=("raspberrypi", "android"))
    parser.add_argument("dist", type=Path, help="folder with the archive that tinysam-bundle made")
    parser.add_argument("--host", default="", help="of the Raspberry Pi, as pi@raspberrypi")
    options = parser.parse_args(arguments)
    try:
        archive = newest_archive(options.dist, options.target)
        if options.target == "raspberrypi":
            push_raspberrypi(archive, options.host)
        else:
            push_android(archive)
    except PushError as error:
        print(f"push: {error}", file=sys.stderr)
        return 1
    return 0


def newest_archive(folder: Path, target: str) -> Path:
    """The latest archive of a target in a folder.

    Raises:
        PushError: there is none.
    """
    found = sorted(folder.glob(f"tinysam-*-{target}.tar.gz"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise PushError(f"no archive for {target} in {folder}: make one with tinysam-bundle --target {target}")
    return found[-1]


def push_raspberrypi(archive: Path, host: str) -> None:
    """Copy the archive to the home folder of `host`, unpack it and run the installer, all over ssh.

    Raises:
        PushError: no host given, no ssh, the host does not answer, or the installation failed.
    """
    if not host or host.startswith("-"):
        raise PushError("say where to: make push-rpi HOST=pi@raspberrypi")
    _need("ssh", "openssh-client")
    folder = shlex.quote(archive.name.removesuffix(".tar.gz"))
    # Unpacked from the stream: nothing is left on the Pi but the folder it installs from.
    unpack = f"tar xzf - || {{ rm -rf {folder}; exit {DAMAGED_BUNDLE}; }}"
    remote = f"rm -rf {folder}; {unpack}; cd {folder} && ./install.sh"
    with archive.open("rb") as stream:
        done = subprocess.run(["ssh", "-o", "ConnectTimeout=10", host, remote], stdin=stream, check=False)
    if done.returncode == 255:
        raise PushError(f"{host} cannot be reached by ssh (the reason is above): is it on, is ssh enabled there?")
    if done.returncode != 0:
        raise PushError(f"installing on {host} stopped with exit status {done.returncode}; its message is above")


def push_android(archive: Path) -> None:
    """Copy the archive and the page in one file to the device's Download folder by adb.

    Raises:
        PushError: no adb, no device or more than one, or the copy failed.
    """
    _need("adb", "adb")
    _check_android_device()
    for path in (_unpack_page(archive), archive):
        done = subprocess.run(["adb", "push", str(path), f"{ANDROID_FOLDER}/"], check=False)
        if done.returncode != 0:
            raise PushError(f"adb could not copy {path.name}; its message is above")
    print(f"In {ANDROID_FOLDER}: open tinysam.html in Chrome, or unpack {archive.name} in Termux (see its README.md).")


def _check_android_device() -> None:
    listing = subprocess.run(["adb", "devices"], capture_output=True, text=True, check=False).stdout
    states = dict(line.split("\t", 1) for line in listing.splitlines() if "\t" in line)
    wanted = os.environ.get("ANDROID_SERIAL", "")
    ready = [serial for serial, state in states.items() if state == "device" and wanted in ("", serial)]
    if not ready:
        listed = ", ".join(f"{serial} {state}" for serial, state in states.items()) or "none"
        raise PushError(
            f"no Android device{f' {wanted}' if wanted else ''}: connect one with USB debugging enabled and allow it "
            f"on its screen (adb lists: {listed})"
        )
    if len(ready) > 1:
        raise PushError(f"{len(ready)} devices ({', '.join(ready)}): choose one with ANDROID_SERIAL=...")


def _unpack_page(archive: Path) -> Path:
    """The page of an Android archive, unpacked beside it."""
    page = archive.with_name("tinysam.html")
    name = f"{archive.name.removesuffix('.tar.gz')}/page/{page.name}"
    try:
        with tarfile.open(archive, "r:gz") as tar:
            content = tar.extractfile(name)
            if not content:
                raise KeyError(f"{name} is no file")
            page.write_bytes(content.read())
    except (tarfile.TarError, zlib.error, EOFError, OSError, KeyError) as error:
        raise PushError(f"{archive} cannot be unpacked ({error}): make it again with make bundle-android") from error
    return page


def _need(program: str, package: str) -> None:
    if not shutil.which(program):
        raise PushError(f"{program} is not installed: install {package}")


if __name__ == "__main__":
    sys.exit(main())
