"""Where Debian's packages come from, and what is said where they cannot be had."""

import subprocess
from pathlib import Path

import pytest

from tinysam.device.arm import debian, root


def test_the_mirror_of_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAN_MIRROR", "http://localhost:1/debian/")
    assert debian.mirror() == "http://localhost:1/debian"


def test_a_host_without_apt_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DEBIAN_MIRROR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(debian.DebianUnavailable, match="apt-get is not installed"):
        debian.mirror()


def test_a_host_with_other_sources_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("apt-get", "dpkg"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'Ubuntu|http://localhost/ubuntu/'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.delenv("DEBIAN_MIRROR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(debian.DebianUnavailable, match="set DEBIAN_MIRROR"):
        debian.mirror()


def test_a_failed_download_leaves_no_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEBIAN_MIRROR", "http://127.0.0.1:9/debian")
    if not Path("/usr/bin/apt-get").exists():
        pytest.skip("no apt-get: install apt")
    with pytest.raises(debian.DebianUnavailable, match="cannot get the package list of bookworm/arm64: E: Failed"):
        root.build_root(root.BOOKWORM, tmp_path)
    assert list((tmp_path / "bookworm").iterdir()) == []


def test_boards_look_like_themselves_to_linux(tmp_path: Path) -> None:
    root.PI4.write_system_files(tmp_path)
    text = (tmp_path / "proc/cpuinfo").read_text()
    assert text.count("processor") == 4
    assert "CPU part\t: 0xd08" in text
    assert (tmp_path / "sys/devices/system/cpu/online").read_text() == "0-3\n"
    assert "asimddp" in root.PI5.cpuinfo()
    assert "asimddp" not in text


def test_a_package_that_cannot_be_unpacked_ends_the_stream(tmp_path: Path) -> None:
    deb = _package(tmp_path, bytes(1 << 20))  # more than a pipe holds
    with pytest.raises(debian.DebianUnavailable, match="cannot unpack thing.deb"):
        debian._unpack(deb, tmp_path / "missing")


def test_packages_are_unpacked_through_the_merged_folders(tmp_path: Path) -> None:
    """A package with files below /lib must not put a folder where the link to usr/lib is."""
    deb = _package(tmp_path, b"x")
    root_folder = tmp_path / "root"
    (root_folder / "usr/lib").mkdir(parents=True)
    (root_folder / "lib").symlink_to("usr/lib")
    debian._unpack(deb, root_folder)
    assert (root_folder / "usr/lib/thing.so").read_text() == "x"
    assert (root_folder / "lib").is_symlink()


def _package(folder: Path, content: bytes) -> Path:
    """A Debian package of one file, /lib/thing.so."""
    package = folder / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "lib").mkdir()
    (package / "lib/thing.so").write_bytes(content)
    control = "Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: x\n"
    (package / "DEBIAN/control").write_text(control)
    deb = folder / "thing.deb"
    try:
        subprocess.run(["dpkg-deb", "-Znone", "--build", str(package), str(deb)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no dpkg-deb: install dpkg")
    return deb
