"""What goes into a bundle: the chosen model files with a manifest of their own, and the picture of the self-test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tinysam.runtime import Segmenter
from tinysam.runtime.errors import ArtifactError
from tinysam.runtime.manifest import Manifest, read_manifest, verify_file, write_manifest

PRECISIONS = {"int8": ("int8",), "fp16": ("fp16",), "fp32": ("fp32",), "both": ("int8", "fp32")}
"""Of the model files, by the name of the option."""
PICTURE = Path(__file__).with_name("picture.jpg")
"""The astronaut (NASA, public domain), from scikit-image's sample photographs, 512 pixels."""
POINT = (220, 120)
"""On the face, in pixels of the picture."""


def copy_model(artifacts: Path, folder: Path, engines: Sequence[str], precisions: Sequence[str]) -> Manifest:
    """Copy the files of the chosen engines and precisions, verified, with a manifest that lists only them.

    Raises:
        FileNotFoundError: no artifacts there, or a file is missing.
        ArtifactError: a file's hash differs, or the model lacks an engine and precision that was asked for.
    """
    manifest = read_manifest(artifacts)
    files = [
        manifest.find(part, engine, precision)
        for engine in engines
        for precision in precisions
        for part in ("encoder", "decoder")
    ]
    folder.mkdir(parents=True)
    for file in files:
        shutil.copyfile(verify_file(artifacts, file), folder / file.path)
    chosen = replace(manifest, files=tuple(files))
    write_manifest(chosen, folder)
    return chosen


def write_self_test(bundle: Path, engines: Sequence[str], precisions: Sequence[str]) -> None:
    """Put the picture, the point and the masks that this machine computes into `bundle/selftest/`.

    The device's masks are compared with these by `selftest.py`.
    """
    folder = bundle / "selftest"
    folder.mkdir()
    shutil.copyfile(PICTURE, folder / "picture.jpg")
    picture = Image.open(PICTURE)
    cases = []
    for engine in engines:
        for precision in precisions:
            segmenter = Segmenter(bundle / "model", engine, precision)
            segmenter.set_image(picture)
            mask = segmenter.predict([POINT], [1], multimask_output=False).masks[0]
            if not 0 < mask.mean() < 1:
                raise ArtifactError(
                    f"{engine} {precision}: the self-test's mask is empty or full; export the model again"
                )
            name = f"mask.{engine}.{precision}.png"
            Image.fromarray(mask.astype(np.uint8) * 255).convert("1").save(folder / name)
            cases.append({"backend": engine, "precision": precision, "mask": name})
    (folder / "selftest.json").write_text(json.dumps({"point": POINT, "cases": cases}, indent=2) + "\n")
