"""Engine versions that are known to compute wrong numbers on some processors.

onnxruntime 1.22 to 1.26 computes an int8 x int8 convolution wrongly on ARM processors without the dot-product
instructions (Cortex-A53, A72, A73: Raspberry Pi 3 and 4) when an input is all -128. 1.31 is right.
"""

import platform
import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
ARM_MACHINES = ("aarch64", "arm64")
WRONG_FROM, RIGHT_FROM = (1, 22), (1, 27)
ADVICE = "pip install --upgrade 'onnxruntime>=1.31', or use --backend tflite or --precision fp32"


def lacks_dot_product(machine: str, cpuinfo: str) -> bool:
    """Whether this is an ARM processor that Linux lists without `asimddp`, going by uname and /proc/cpuinfo."""
    features = re.findall(r"^Features\s*:(.*)$", cpuinfo, re.MULTILINE)
    return machine in ARM_MACHINES and bool(features) and any("asimddp" not in line.split() for line in features)


def onnxruntime_bug(version: str, machine: str, cpuinfo: str) -> str | None:
    """Why INT8 files must not run with this onnxruntime on this processor; None if they may."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if WRONG_FROM <= numbers < RIGHT_FROM and lacks_dot_product(machine, cpuinfo):
        return (
            f"onnxruntime {version} computes int8 convolutions wrongly on this processor, "
            f"which has no dot-product instructions (Raspberry Pi 3 and 4): {ADVICE}"
        )
    return None


def check_onnxruntime(version: str, precision: str) -> str | None:
    """The same for this machine and a model file of this precision."""
    if precision != "int8":
        return None
    cpuinfo = CPUINFO.read_text(errors="replace") if CPUINFO.is_file() else ""
    return onnxruntime_bug(version, platform.machine(), cpuinfo)
