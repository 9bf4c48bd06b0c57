"""Getting a bundle to a device: every way in which there is none."""

from pathlib import Path

import pytest

from tinysam.device.bundle import push


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with archives, and a PATH with no programs but those a test adds."""
    for target in ("raspberrypi", "android"):
        (tmp_path / f"tinysam-nano-448-{target}.tar.gz").write_bytes(b"")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def program(dist: Path, name: str, script: str) -> None:
    path = dist / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert push.main(list(arguments)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "tinysam-bundle --target android" in failure(capsys, "android", str(tmp_path))


def test_no_host(dist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "HOST=pi@raspberrypi" in failure(capsys, "raspberrypi", str(dist))


def test_a_host_that_is_an_option_is_refused(dist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "HOST=pi@raspberrypi" in failure(capsys, "raspberrypi", str(dist), "--host=-oProxyCommand=x")


def test_no_ssh(dist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ssh is not installed" in failure(capsys, "raspberrypi", str(dist), "--host", "pi@raspberrypi")


def test_a_pi_that_does_not_answer(dist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(dist, "ssh", "exit 255")
    assert "cannot be reached" in failure(capsys, "raspberrypi", str(dist), "--host", "pi@raspberrypi")


def test_an_installer_that_fails_on_the_pi(dist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(dist, "ssh", "exit 3")
    assert "exit status 3" in failure(capsys, "raspberrypi", str(dist), "--host", "pi@raspberrypi")


def test_no_adb(dist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "adb is not installed" in failure(capsys, "android", str(dist))


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("", "no Android device"),
        ("0123\tunauthorized", "allow debugging on its screen"),
        ("0123\tdevice\n4567\tdevice", "2 devices (0123, 4567)"),
    ],
)
def test_no_single_device(dist: Path, capsys: pytest.CaptureFixture[str], listing: str, expected: str) -> None:
    lines = "\n".join(f'echo "{line}"' for line in ["List of devices attached", *listing.splitlines()])
    program(dist, "adb", lines)
    assert expected in failure(capsys, "android", str(dist))
