"""The boards that are emulated: QEMU's processor and what Linux says of it in /proc/cpuinfo and /sys.

The engines read these files to choose their kernels, and crash or pick x86 ones when the host's own show through.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
