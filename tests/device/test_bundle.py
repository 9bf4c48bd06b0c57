"""The archive for a Raspberry Pi: what is in it, and how its installer refuses what cannot work."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.device.conftest import unpack
from tinysam.device.arm.wheels import ENGINES
from tinysam.device.bundle import archive, cli, wheel
from tinysam.device.bundle.archive import Choice, build_bundle
from tinysam.device.bundle.wheel import build_wheel, project_version
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest import read_manifest, sealed, verify_file


@pytest.fixture
def folder(bundle: Path, tmp_path: Path) -> Path:
    return unpack(bundle, tmp_path)


@pytest.fixture
def pi(tmp_path: Path) -> dict[str, str]:
    """An environment whose `uname -m` is a Raspberry Pi's, with no network."""
    programs = tmp_path / "programs"
    programs.mkdir()
    _program(programs / "uname", "echo aarch64")
    dead = "http://127.0.0.1:9/simple"
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "PIP_INDEX_URL": dead,
        "PIP_EXTRA_INDEX_URL": dead,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "0",
    }


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def install(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installer from another folder, as somebody might."""
    command = [str(folder / "install.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")


def message(done: subprocess.CompletedProcess[str]) -> str:
    """The installer's last line on stderr."""
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("install.sh: "), done.stderr
    return line


def test_the_bundle_holds_a_wheel_of_code_alone_and_a_model_that_verifies(folder: Path) -> None:
    (wheel,) = (folder / "wheels").glob("*.whl")
    assert wheel.stat().st_size < 600_000
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert "tinysam/runtime/cli.py" in names
    assert not [name for name in names if name.endswith((".safetensors", ".onnx", ".tflite"))]
    assert set(re.findall(r"^Requires-Dist: ([a-z]+)[^;\n]*$", metadata, re.MULTILINE)) == {"numpy", "pillow"}
    for requirement in ENGINES.values():
        assert f"Requires-Dist: {requirement}; " in metadata
    manifest = read_manifest(folder / "model")
    assert {(file.engine, file.precision) for file in manifest.files} == {("onnx", "int8"), ("tflite", "int8")}
    for file in manifest.files:
        verify_file(folder / "model", file)


def test_every_file_is_listed_with_its_hash(folder: Path) -> None:
    listed = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(listed) == present - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert json.loads((folder / "bundle.json").read_text())["target"] == "raspberrypi"


def test_the_wheel_depends_on_its_contents_only(tmp_path: Path) -> None:
    first = build_wheel(tmp_path / "first").read_bytes()
    time.sleep(2)  # the resolution of times in a zip file, in seconds
    assert build_wheel(tmp_path / "second").read_bytes() == first


def test_the_version_stands_in_one_place_and_its_changes_are_listed() -> None:
    assert f"\n## {project_version()} (" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_a_damaged_model_makes_no_wheel(
    artifacts_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(artifacts_dir, tmp_path / "model")
    (tmp_path / "model" / "decoder.int8.onnx").write_bytes(b"")
    assert wheel.main([str(tmp_path / "dist"), "--model", str(tmp_path / "model")]) == 1
    message = capsys.readouterr().err
    assert message.startswith("wheel: ") and "decoder.int8.onnx" in message and message.count("\n") == 1
    assert not (tmp_path / "dist").exists()


def test_a_model_of_another_manifest_version_makes_no_archive(
    artifacts_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = tmp_path / "model"
    newer.mkdir()
    manifest = json.loads((artifacts_dir / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps(manifest | {"schema": 1}))
    for target in ("raspberrypi", "web"):
        assert cli.main(["--target", target, "--model", str(newer), "--out", str(tmp_path / "out")]) == 1
        assert "schema 1, expected 2" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("option", ["--with-wheels", "--backend=onnx"])
def test_a_web_bundle_refuses_options_it_would_ignore(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--target", "web", option, "--out", str(tmp_path / "out")]) == 1
    assert option.split("=")[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_without_the_wanted_precision_makes_no_archive(artifacts_dir: Path, tmp_path: Path) -> None:
    partial = tmp_path / "model"
    shutil.copytree(artifacts_dir, partial)
    manifest = json.loads((partial / "manifest.json").read_text())
    manifest["files"] = [file for file in manifest["files"] if file["precision"] == "fp32"]
    (partial / "manifest.json").write_text(sealed(manifest))
    with pytest.raises(ArtifactError, match="precision int8"):
        build_bundle(Choice("raspberrypi", partial), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bundle_has_the_engines_that_the_model_has_this_precision_for(
    artifacts_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "build_wheel", lambda folder: None)
    half = tmp_path / "model"
    shutil.copytree(artifacts_dir, half)
    manifest = json.loads((half / "manifest.json").read_text())
    for file in manifest["files"]:
        if (file["engine"], file["precision"]) == ("tflite", "fp32"):
            file["precision"] = "fp16"
    (half / "manifest.json").write_text(sealed(manifest))
    options = ["--model", str(half), "--out", str(tmp_path), "--precision", "fp16"]
    assert cli.main(["--target", "raspberrypi", *options]) == 0
    (packed,) = tmp_path.glob("*-raspberrypi.tar.gz")
    folder = unpack(packed, tmp_path)
    assert json.loads((folder / "bundle.json").read_text())["engines"] == ["tflite"]
    assert {(file.engine, file.precision) for file in read_manifest(folder / "model").files} == {("tflite", "fp16")}


@pytest.mark.parametrize("options", [["--backend=both"], ["--backend=onnx"]], ids=str)
def test_a_named_engine_without_this_precision_makes_no_archive(
    options: list[str], artifacts_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--target", "raspberrypi", "--model", str(artifacts_dir), "--out", str(tmp_path / "out")]
    assert cli.main([*common, "--precision=fp16", *options]) == 1
    assert "precision fp16; it has" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_artifact_makes_no_archive(
    artifacts_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "model"
    shutil.copytree(artifacts_dir, damaged)
    with (damaged / "encoder.int8.tflite").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff\x00\xff")
    arguments = ["--target", "raspberrypi", "--model", str(damaged), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 1
    assert "encoder.int8.tflite is damaged" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_install_refuses_another_architecture(folder: Path, pi: dict[str, str], tmp_path: Path) -> None:
    _program(tmp_path / "programs/uname", "echo x86_64")
    done = install(folder, pi)
    assert done.returncode == 1
    assert "64-bit ARM (aarch64), this machine is x86_64" in message(done)


def test_install_tells_a_32_bit_system_what_to_do(folder: Path, pi: dict[str, str], tmp_path: Path) -> None:
    _program(tmp_path / "programs/uname", "echo armv7l")
    done = install(folder, pi)
    assert done.returncode == 1
    assert "install the 64-bit Raspberry Pi OS" in message(done)


@pytest.mark.parametrize(
    ("version", "fails", "words"),
    [
        pytest.param("3.9", "*", "Python 3.9 is too old: 3.10 or newer", id="old"),
        pytest.param("3.11", "*maxsize*", "install the 64-bit Raspberry Pi OS", id="32-bit programs, 64-bit kernel"),
        pytest.param("3.11", "*GNU_LIBC*", "not glibc", id="Termux"),
    ],
)
def test_install_refuses_a_python_that_the_engines_do_not_have(
    folder: Path, pi: dict[str, str], tmp_path: Path, version: str, fails: str, words: str
) -> None:
    _program(tmp_path / "programs/python3", f'case "$2" in *print*) echo {version} ;; {fails}) exit 1 ;; esac')
    done = install(folder, pi)
    assert done.returncode == 1
    assert words in message(done)


def test_install_names_a_file_with_a_changed_byte(folder: Path, pi: dict[str, str], tmp_path: Path) -> None:
    path = folder / "model/encoder.int8.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = install(folder, pi)
    assert done.returncode == 3
    assert "damaged files: model/encoder.int8.onnx" in message(done)
    assert not (tmp_path / "home/tinysam").exists()


def test_install_refuses_a_damaged_list_of_hashes(folder: Path, pi: dict[str, str]) -> None:
    path = folder / "SHA256SUMS"
    path.write_text(f"?{path.read_text()[1:]}")
    done = install(folder, pi)
    assert done.returncode == 3
    assert "copy and unpack the archive again" in message(done)


def test_install_asks_for_room(folder: Path, pi: dict[str, str], tmp_path: Path) -> None:
    _program(tmp_path / "programs/df", "echo head; echo /dev/x 100 50 20480 50% /")
    done = install(folder, pi, "--backend", "both")
    assert done.returncode == 1
    assert "20 MB free, 439 MB are needed" in message(done)
    assert not (tmp_path / "home/tinysam").exists()


def test_install_without_network_and_wheelhouse_leaves_nothing(
    folder: Path, pi: dict[str, str], tmp_path: Path
) -> None:
    done = install(folder, pi, "--backend", "onnx")
    assert done.returncode == 4
    assert "--with-wheels" in message(done)
    assert not (tmp_path / "home/tinysam").exists()


def test_install_refuses_a_backend_the_bundle_lacks(folder: Path, pi: dict[str, str]) -> None:
    done = install(folder, pi, "--backend", "tensorrt")
    assert done.returncode == 2
    assert "backend tensorrt: this bundle has models for: tflite onnx" in message(done)


def test_a_failed_reinstallation_keeps_the_one_that_works(folder: Path, pi: dict[str, str], tmp_path: Path) -> None:
    """The whole installer on this machine, whose own numpy, Pillow and LiteRT take the place of downloads."""
    here = {"PYTHONPATH": sysconfig.get_path("purelib")}
    arguments = "--prefix", str(tmp_path / "with space"), "--python", sys.executable, "--backend", "tflite"
    done = install(folder, pi | here, *arguments)
    assert done.returncode == 0, done.stderr
    assert "mask identical" in done.stdout
    assert install(folder, pi, *arguments).returncode == 4
    run = [tmp_path / "with space/bin/tinysam-run", folder / "selftest/picture.jpg", "--point", "220,120"]
    options = ["--backend", "tflite", "--format", "mask", "--out", tmp_path / "out"]
    subprocess.run([*run, *options], env=pi | here, check=True, capture_output=True)
    assert len(list((tmp_path / "out").iterdir())) == 1
