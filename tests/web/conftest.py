"""A browser, and the page built around the real artifacts."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinysam.device.bundle.site import WEB, build_site, install_packages
from tinysam.device.bundle.wheel import BuildError

DRIVER = Path(__file__).with_name("drive.mjs")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """Runs jobs of the driver: a list of steps in, a list of results out."""

    def __init__(self, path: str) -> None:
        self.path = path

    def run(self, url: str, *steps: tuple[Any, ...], ready: bool = True, **options: Any) -> dict[str, Any]:
        """Open `url`, wait until the model is loaded (if `ready`), do the steps, close.

        Fails on an error that the page did not handle.
        """
        first = [("ready",)] if ready else [("evaluate", "null")]
        job = {"url": url, "browser": self.path, "steps": [*first, *steps], **options}
        done = subprocess.run(
            ["node", str(DRIVER)], input=json.dumps(job), capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        report: dict[str, Any] = json.loads(done.stdout)
        assert report["errors"] == []
        report["results"] = report["results"][1:]
        return report


def unpack_mask(result: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The driver's bit string as bool (height, width)."""
    shape = result["height"], result["width"]
    bits = np.frombuffer(base64.b64decode(result["bits"]), np.uint8)
    return np.unpackbits(bits)[: shape[0] * shape[1]].astype(bool).reshape(shape)


@pytest.fixture(scope="session")
def browser() -> Browser:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("no Chromium: install chromium")
    try:
        install_packages()
    except BuildError as error:
        pytest.skip(str(error))
    return Browser(found)


@pytest.fixture(scope="session")
def site(browser: Browser, artifacts_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a served page with INT8 and fp32."""
    folder = tmp_path_factory.mktemp("web") / "site"
    build_site(artifacts_dir, folder, precisions=("int8", "fp32"))
    command = ["node", str(WEB / "serve.mjs"), str(folder), "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="session")
def single(browser: Browser, artifacts_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the page as one file on the disk."""
    folder = tmp_path_factory.mktemp("web") / "single"
    build_site(artifacts_dir, folder, single=True)
    return (folder / "tinysam.html").as_uri()
