"""The boards that are emulated, and their arm64 Debian folders, built once and kept in a cache folder.

A board is QEMU's processor and what Linux says of it in /proc/cpuinfo and /sys. The engines read these files to choose
their kernels, and crash or pick x86 ones when the host's own show through.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinysam.device.arm.debian import DebianUnavailable, unpack_packages

PACKAGES = (
    "python3",
    "python3-venv",
    "libstdc++6",
    "libgomp1",
    "zlib1g",
    # What an installer script needs.
    "dash",
    "coreutils",
    "tar",
    "gzip",
    "sed",
    "grep",
    # Debian's pip reads the certificates as it starts, network or not.
    "ca-certificates",
)
TOOL_PACKAGES = ("qemu-user-static", "qemu-user", "proot")
TOOL_SUITE = "bookworm"
"""QEMU 7.2 whatever the host runs, so that counts made on two machines can be compared."""
DONE = ".complete"

CORES = 4


@dataclass(frozen=True)
class Board:
    """One emulated board."""

    cpu: str
    """QEMU's name of the processor; never `max`, with which XNNPACK's int8 kernels went wrong silently (QEMU 7.2)."""
    part: str
    """`CPU part` in /proc/cpuinfo."""
    features: str
    """`Features` in /proc/cpuinfo: `asimddp` is the dot-product extension."""

    def cpuinfo(self) -> str:
        """The text of /proc/cpuinfo."""
        block = (
            "processor\t: {core}\nBogoMIPS\t: 108.00\n"
            f"Features\t: {self.features}\n"
            "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
            f"CPU part\t: {self.part}\nCPU revision\t: 3\n\n"
        )
        return "".join(block.format(core=core) for core in range(CORES))

    def write_system_files(self, root: Path) -> None:
        """Write what the engines read of the processor into an arm64 root."""
        cpus = root / "sys/devices/system/cpu"
        files = {root / "proc/cpuinfo": self.cpuinfo(), cpus / "kernel_max": "255\n"}
        files |= {cpus / name: f"0-{CORES - 1}\n" for name in ("possible", "present", "online")}
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


PI4 = Board("cortex-a72", "0xd08", "fp asimd evtstrm crc32 cpuid")
PI5 = Board(
    "cortex-a76",
    "0xd0b",
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
)
BOARDS = {board.cpu: board for board in (PI4, PI5)}


@dataclass(frozen=True)
class Release:
    """One Debian release that Raspberry Pi OS is made from."""

    suite: str
    debian: str
    """Version of Debian, as `12`."""
    python: str
    """Version of its python3, as `3.11`."""


BOOKWORM = Release("bookworm", "12", "3.11")
TRIXIE = Release("trixie", "13", "3.13")
RELEASES = {release.suite: release for release in (BOOKWORM, TRIXIE)}


def cache_folder() -> Path:
    """Where roots, emulator and wheels are kept: `TINYSAM_ARM_CACHE`, or `build/arm` of the current folder."""
    return Path(os.environ.get("TINYSAM_ARM_CACHE", "build/arm")).resolve()


def build_root(release: Release, cache: Path) -> Path:
    """The arm64 root of a release (about 100 MB), built on first use.

    Raises:
        DebianUnavailable: packages cannot be had here.
    """

    def fill(root: Path) -> None:
        unpack_packages(PACKAGES, release.suite, "arm64", root)
        shell = root / "usr/bin/sh"
        if not shell.is_symlink():
            shell.symlink_to("dash")
        for name in ("tmp", "root", "dev", "etc/ssl/certs"):
            (root / name).mkdir(parents=True, exist_ok=True)
        _write_certificates(root)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")

    return build_once(cache / release.suite / "base", fill)


def _write_certificates(root: Path) -> None:
    """What the maintainer script of ca-certificates would write."""
    found = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    text = "".join(path.read_text() for path in found)
    (root / "etc/ssl/certs/ca-certificates.crt").write_text(text)


def build_tools(cache: Path) -> Path:
    """QEMU (static and with plugins) and proot for this x86-64 host, unpacked into a folder of their own."""
    machine = os.uname().machine
    if machine != "x86_64":
        raise DebianUnavailable(f"the emulator is set up for x86-64 hosts; this one is {machine}")
    return build_once(cache / "tools", lambda root: unpack_packages(TOOL_PACKAGES, TOOL_SUITE, "amd64", root))


def board_root(release: Release, board: Board, cache: Path) -> Path:
    """The root of a release as it looks on one board: a hard-linked copy with that board's /proc and /sys files."""
    if board.cpu not in BOARDS:
        raise ValueError(f"{board.cpu}: not an emulated board; choose from {', '.join(BOARDS)}")
    base = build_root(release, cache)

    def fill(root: Path) -> None:
        subprocess.run(["cp", "-al", f"{base}/.", str(root)], check=True)
        board.write_system_files(root)

    return build_once(cache / release.suite / board.cpu, fill)


def build_once(target: Path, fill: Callable[[Path], object]) -> Path:
    """Fill a folder beside `target` and move it into place, so that a failure leaves nothing half-built."""
    if (target / DONE).exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        work = Path(folder) / "root"
        work.mkdir()
        fill(work)
        (work / DONE).touch()
        shutil.rmtree(target, ignore_errors=True)
        try:
            work.rename(target)
        except OSError:
            if not (target / DONE).exists():
                raise
    return target
