"""Getting a bundle to a device: every way in which there is none."""

import io
import os
import tarfile
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


def test_a_damaged_archive_leaves_nothing_on_the_pi(dist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = dist / "home"
    home.mkdir()
    program(dist, "ssh", f'for last; do :; done; cd {home} && PATH={os.defpath} exec sh -c "$last"')
    archive = dist / "tinysam-nano-448-raspberrypi.tar.gz"
    _pack(archive, "install.sh", os.urandom(100_000))
    archive.write_bytes(archive.read_bytes()[:50_000])
    assert push.main(["raspberrypi", str(dist), "--host", "pi@raspberrypi"]) == 1
    assert "exit status 3" in capsys.readouterr().err
    assert list(home.iterdir()) == []


def _pack(archive: Path, name: str, content: bytes) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo(f"{archive.name.removesuffix('.tar.gz')}/{name}")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))


def test_no_adb(dist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "adb is not installed" in failure(capsys, "android", str(dist))


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("", "no Android device"),
        ("* daemon started successfully", "adb lists: none"),
        ("0123\tunauthorized", "adb lists: 0123 unauthorized"),
        ("0123\tno permissions (missing udev rules?)", "adb lists: 0123 no permissions (missing udev rules?)"),
        ("0123\tdevice\n4567\tdevice", "2 devices (0123, 4567)"),
    ],
)
def test_no_single_device(dist: Path, capsys: pytest.CaptureFixture[str], listing: str, expected: str) -> None:
    list_devices(dist, *listing.splitlines())
    assert expected in failure(capsys, "android", str(dist))


def test_a_chosen_device_that_is_not_there(
    dist: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list_devices(dist, "0123\tdevice")
    monkeypatch.setenv("ANDROID_SERIAL", "4567")
    assert "no Android device 4567" in failure(capsys, "android", str(dist))


def test_the_page_and_the_archive_go_to_the_chosen_device(dist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = dist / "tinysam-nano-448-android.tar.gz"
    _pack(archive, "page/tinysam.html", b"<html>")
    list_devices(dist, "0123\tdevice", "4567\tdevice")
    monkeypatch.setenv("ANDROID_SERIAL", "4567")
    assert push.main(["android", str(dist)]) == 0
    page = dist / "tinysam.html"
    assert page.read_bytes() == b"<html>"
    sent = [f"push {path} /sdcard/Download/" for path in (page, archive)]
    assert (dist / "calls").read_text().splitlines() == ["devices", *sent]


@pytest.mark.parametrize("content", [b"", b"cut off"])
def test_an_android_archive_that_cannot_be_unpacked(
    dist: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (dist / "tinysam-nano-448-android.tar.gz").write_bytes(content)
    list_devices(dist, "0123\tdevice")
    assert "cannot be unpacked" in failure(capsys, "android", str(dist))
    assert not (dist / "tinysam.html").exists()


def list_devices(dist: Path, *lines: str) -> None:
    """An adb that writes its arguments down and lists these devices."""
    listing = "\n".join(f'echo "{line}"' for line in ["List of devices attached", *lines])
    program(dist, "adb", f'echo "$*" >>{dist / "calls"}\n[ "$1" != devices ] || {{\n{listing}\n}}')
