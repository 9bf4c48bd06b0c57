"""Engine versions that compute wrong numbers are refused where they do, and only there."""

from pathlib import Path

import pytest

from tinysam.device.arm.root import PI4, PI5
from tinysam.runtime.engines import known_bugs

X86_CPUINFO = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu sse2 avx2\n"


@pytest.mark.parametrize("version", ["1.22.0", "1.23.2", "1.26.1"])
def test_wrong_onnxruntime_is_refused_on_a_raspberry_pi_4(version: str) -> None:
    reason = known_bugs.onnxruntime_bug(version, "aarch64", PI4.cpuinfo())
    assert reason is not None
    assert version in reason
    assert "onnxruntime>=1.31" in reason


@pytest.mark.parametrize(
    ("version", "machine", "cpuinfo"),
    [
        ("1.31.1", "aarch64", PI4.cpuinfo()),
        ("1.21.1", "aarch64", PI4.cpuinfo()),
        ("1.23.0", "aarch64", PI5.cpuinfo()),
        ("1.23.0", "x86_64", X86_CPUINFO),
        ("1.23.0", "aarch64", ""),
    ],
)
def test_every_other_combination_may_run(version: str, machine: str, cpuinfo: str) -> None:
    assert known_bugs.onnxruntime_bug(version, machine, cpuinfo) is None


def test_fp32_files_may_run_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(PI4.cpuinfo())
    monkeypatch.setattr(known_bugs, "CPUINFO", cpuinfo)
    monkeypatch.setattr(known_bugs.platform, "machine", lambda: "aarch64")
    assert known_bugs.check_onnxruntime("1.23.0", "fp32") is None
    assert known_bugs.check_onnxruntime("1.23.0", "int8") is not None
