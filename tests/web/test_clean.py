"""The page's cleaning of masks against the Python runtime's, in Node."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from tinysam.device.bundle.site import WEB
from tinysam.runtime.manifest import Cleaning
from tinysam.runtime.masks.clean import clean_mask

SIDE, HEIGHT, WIDTH = 32, 26, 32
SCRIPT = """
import { readFileSync } from "node:fs";
import { cleanMask } from "./src/clean.js";
const { masks, cleaning, seen } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(masks.map((mask) => Array.from(cleanMask(Float32Array.from(mask), cleaning, seen)))));
"""


@pytest.mark.parametrize("cleaning", [Cleaning(0.05, 0.02), Cleaning(0, 0.1), Cleaning(0.3, 0), Cleaning()], ids=str)
def test_the_page_cleans_as_the_runtime_does(cleaning: Cleaning) -> None:
    if not shutil.which("node"):
        pytest.skip("no Node.js: install nodejs")
    rng = np.random.default_rng(0)
    blobs = np.kron(rng.standard_normal((6, 4, 4)), np.ones((8, 8))) + 0.7 * rng.standard_normal((6, SIDE, SIDE))
    masks = np.concatenate([blobs, np.full((1, SIDE, SIDE), -1.0), np.ones((1, SIDE, SIDE))]).astype(np.float32)
    job = {
        "masks": masks.reshape(len(masks), -1).tolist(),
        "cleaning": vars(cleaning),
        "seen": {"width": WIDTH, "height": HEIGHT, "side": SIDE},
    }
    command = ["node", "--input-type=module", "--eval", SCRIPT]
    done = subprocess.run(command, cwd=WEB, input=json.dumps(job), capture_output=True, text=True, check=True)
    page = np.array(json.loads(done.stdout), np.float32).reshape(masks.shape)
    expected = np.stack([clean_mask(mask, cleaning, (HEIGHT, WIDTH)) for mask in masks])
    np.testing.assert_array_equal(page, expected)
    assert np.array_equal(expected, masks) == (cleaning == Cleaning())
