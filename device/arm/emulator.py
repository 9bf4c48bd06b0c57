"""Running arm64 programs of an unpacked Debian root under QEMU's user-mode emulation."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinysam import runtime
from tinysam.device.arm.root import Board, Release, board_root, build_once, build_tools
from tinysam.device.arm.wheels import download, install

HOST_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")


@dataclass(frozen=True)
class Emulator:
    """One emulated board with one Debian release."""

    root: Path
    """The arm64 root, with the board's /proc and /sys files."""
    tools: Path
    """Folder with QEMU and proot."""
    board: Board
    release: Release
    site: Path | None = None
    """Folder with the wheels, unpacked: PYTHONPATH of `python`."""

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Environment of an emulated program: nothing of the host's but what is named here."""
        base = {"QEMU_CPU": self.board.cpu, "PATH": "/usr/bin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
        base |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}
        return base | dict(extra or {})

    def python(
        self,
        arguments: Sequence[str],
        *,
        plugin: Path | None = None,
        plugin_options: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the release's Python on host paths; it cannot start child processes (`shell` can).

        Args:
            arguments: of the interpreter: a script and its arguments, or `-c` and code.
            plugin: QEMU TCG plugin to load, a shared object of the host.
            plugin_options: names and values that the plugin takes.
            timeout_s: seconds until it is stopped (`subprocess.TimeoutExpired`).
            environment: further variables.
        """
        extra = {"PYTHONPATH": str(self.site)} if self.site else {}
        interpreter = self.root / f"usr/bin/python{self.release.python}"
        return subprocess.run(
            [*self._qemu(plugin, plugin_options or {}), "-L", str(self.root), str(interpreter), *arguments],
            env=self.environment(extra | dict(environment or {})),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def shell(
        self, command: str, *, binds: Mapping[Path, str] | None = None, timeout_s: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command that sees the arm64 root as its whole file system, child processes included.

        Args:
            command: for `/bin/sh -c`.
            binds: host folders to show inside, with their path there.
            timeout_s: seconds until it is stopped.
        """
        qemu = self.tools / "usr/bin/qemu-aarch64-static"
        proot = [str(self.tools / "usr/bin/proot"), "-q", str(qemu), "-r", str(self.root), "-w", "/root", "-0"]
        for host, inside in {Path("/dev"): "/dev", Path("/etc/resolv.conf"): "/etc/resolv.conf"}.items():
            proot += ["-b", f"{host}:{inside}"]
        for host, inside in (binds or {}).items():
            proot += ["-b", f"{host}:{inside}"]
        return subprocess.run(
            [*self._loader(), *proot, "/bin/sh", "-c", command],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def _qemu(self, plugin: Path | None, options: Mapping[str, str]) -> list[str]:
        if plugin is None:
            return [str(self.tools / "usr/bin/qemu-aarch64-static")]
        loaded = ",".join([str(plugin), *(f"{name}={value}" for name, value in options.items())])
        return [*self._loader(), str(self.tools / "usr/bin/qemu-aarch64"), "-plugin", loaded]

    def _loader(self) -> list[str]:
        """Run a dynamic program of the tools folder with that folder's own C library, whatever the host has."""
        libraries = ":".join(str(self.tools / name) for name in HOST_LIBRARIES)
        return [str(self.tools / "lib64/ld-linux-x86-64.so.2"), "--library-path", libraries]


def link_runtime(packages: Path) -> None:
    """Put `tinysam.runtime`, as it is here, into a new folder for the PYTHONPATH of an emulated Python."""
    (packages / "tinysam").mkdir(parents=True)
    (packages / "tinysam" / "runtime").symlink_to(Path(runtime.__file__).parent.resolve())


def build_emulator(release: Release, board: Board, cache: Path, *, engines: bool = True) -> Emulator:
    """An emulator with everything it needs, fetched on first use.

    Args:
        release: Debian release.
        board: emulated board.
        cache: folder that keeps roots, tools and wheels.
        engines: unpack numpy, Pillow and both engines for `python`; without, a bare Debian as an installer meets it.

    Raises:
        DebianUnavailable: no Debian packages here.
        WheelsUnavailable: pip cannot fetch the aarch64 wheels.
    """
    tools = build_tools(cache)
    root = board_root(release, board, cache)
    site = _site(release, cache) if engines else None
    return Emulator(root, tools, board, release, site)


def _site(release: Release, cache: Path) -> Path:
    """The aarch64 wheels of a release's Python, downloaded and unpacked once."""
    wheels = build_once(cache / "wheels" / release.python, lambda folder: download(release.python, folder))
    return build_once(cache / "site" / release.python, lambda folder: install(wheels, folder))
