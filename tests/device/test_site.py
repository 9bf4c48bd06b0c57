"""What building the page needs, and what is said where it cannot be had."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tinysam.device.bundle import site
from tinysam.device.bundle.wheel import BuildError
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest import read_manifest, write_manifest


def test_a_machine_without_node_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="Node.js 18 or newer"):
        site.install_packages()


def test_packages_that_cannot_be_fetched_are_fetched_again_next_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not shutil.which("npm"):
        pytest.skip("no npm: install npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(site.WEB / name, tmp_path / name)
    (tmp_path / "node_modules").mkdir()  # of an earlier attempt that was cut off
    monkeypatch.setattr(site, "WEB", tmp_path)
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(BuildError, match="takes a network once: npm error code ECONNREFUSED"):
        site.install_packages()


def test_a_model_of_another_manifest_version_leaves_the_page_as_it_was(
    artifacts_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((artifacts_dir / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"schema": 1}))
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("earlier")
    assert site.main([str(page), "--model", str(tmp_path)]) == 1
    assert "schema 1, expected 2" in capsys.readouterr().err
    assert (page / "index.html").read_text() == "earlier"


def test_a_model_of_an_earlier_export_is_refused(artifacts_dir: Path, tmp_path: Path) -> None:
    manifest = read_manifest(artifacts_dir)
    files = []
    for file in manifest.files:
        kept = {name: signature for name, signature in file.signatures.items() if name != "prepare"}
        files.append(replace(file, signatures=kept))
    write_manifest(replace(manifest, files=tuple(files)), tmp_path)
    with pytest.raises(ArtifactError, match=r"^decoder\.int8\.tflite: lacks prepare; export the model again$"):
        site.build_site(tmp_path, tmp_path / "page")
