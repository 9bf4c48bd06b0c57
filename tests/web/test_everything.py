"""Everything mode of the page against that of the runtime, on the model whose answers are known: needs Node only."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runtime import disc_model
from tests.runtime.conftest import picture
from tinysam.device.bundle.site import WEB
from tinysam.runtime import Segmenter
from tinysam.runtime.everything.crops import Crop, is_flat
from tinysam.runtime.everything.generator import click_prompts, segment_everything
from tinysam.runtime.everything.points import point_grid
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.geometry import Frame
from tinysam.runtime.mask_choice import ambiguous_masks
from tinysam.runtime.preprocess import resize

PROGRAM = """
import { readFileSync } from "node:fs";
const { segmentEverything } = await import(process.argv[1]);
const { thresholds, side, photo, ambiguous, answers } = JSON.parse(readFileSync(0));
const key = (x, y) => `${x.toFixed(2)} ${y.toFixed(2)}`;
const known = new Map(answers.map(({ point: [x, y], masks }) => [key(x, y), masks]));
const asked = [];
const model = {
  manifest: { everything: thresholds, labels: { positive: 1, padding: -1 }, cleaning: { islands: 0, holes: 0 } },
  lowRes: side,
  async decodeAbove(_, [[x, y]], threshold) {
    asked.push(key(x, y));
    const masks = known.get(key(x, y)).map(({ iou, logits }) => ({ iou, logits: Float32Array.from(logits) }));
    const best = Math.max(...masks.map(({ iou }) => iou));
    return { best, masks: Math.max(...ambiguous.map((k) => masks[k].iou)) > threshold ? masks : [] };
  },
};
const found = await segmentEverything(model, null, photo, () => {});
console.log(JSON.stringify({ asked: asked.length, masks: found.map(({ iou, area }) => ({ iou, area })) }));
"""

FLAT = """
import { readFileSync } from "node:fs";
const { isFlat } = await import(process.argv[1]);
const pictures = JSON.parse(readFileSync(0));
console.log(JSON.stringify(pictures.map(({ rgb, ...photo }) => isFlat(Uint8Array.from(rgb), photo))));
"""


def run_page(segmenter: Segmenter, settings: EverythingSettings) -> dict[str, Any]:
    """What the page finds with the answers of a segmenter, whose image is set, to every point of the grid."""
    frame = segmenter.frame
    height, width = frame.original_size
    prompts = click_prompts(frame, point_grid(settings.points_per_side) * [width, height])
    decoded = segmenter.decode_above(prompts, -np.inf, single_mask=True)
    answers = []
    for coords, iou, masks in zip(prompts.coords, decoded.iou, decoded.masks, strict=True):
        listed = [{"iou": float(i), "logits": mask.ravel().tolist()} for i, mask in zip(iou, masks, strict=True)]
        answers.append({"point": coords[0].tolist(), "masks": listed})
    job = {
        "thresholds": {name: value for name, value in vars(settings).items() if isinstance(value, int | float)},
        "side": segmenter.graphs.low_res_side,
        "photo": {"width": width, "height": height, "input": frame.input_size[::-1]},
        "ambiguous": ambiguous_masks(segmenter.manifest.mask_tokens),
        "answers": answers,
    }
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", PROGRAM, str(WEB / "src" / "everything.js")],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(not shutil.which("node"), reason="no Node.js: install nodejs")
@pytest.mark.parametrize(
    ("tokens", "model", "asked_again"),
    [
        ((1, 2, 3), {"coarse_agreement": 4, "coarse_logit_thresh": 4.0}, 0),
        ((1, 2, 3), {"coarse_agreement": 30, "coarse_share": 0.4}, 0),
        ((0, 1), {"coarse_agreement": 30, "coarse_share": 0.4}, 0),
        ((1, 2, 3), {"pred_iou_thresh": 0.95, "stability_score_thresh": 0.5}, 16),
        ((0, 1), {"pred_iou_thresh": 0.95, "stability_score_thresh": 0.5}, 16),
    ],
)
def test_the_page_finds_what_the_runtime_finds(
    tmp_path: Path, tokens: tuple[int, ...], model: dict[str, Any], asked_again: int
) -> None:
    segmenter = Segmenter(disc_model.build(tmp_path, tokens), precision="fp32", threads=1)
    image = picture(200, 150)
    thresholds = replace(disc_model.THRESHOLDS, points_per_side=12, **model)
    settings = EverythingSettings.of_model(thresholds, points_per_batch=1)
    found = segment_everything(segmenter, image, settings)
    segmenter.set_image(image)
    page = run_page(segmenter, settings)
    assert page["asked"] == found.points + asked_again
    assert sorted(mask["iou"] for mask in page["masks"]) == pytest.approx(
        sorted(mask.predicted_iou for mask in found.masks)
    )
    assert len(page["masks"]) > 5
    areas = [mask["area"] for mask in page["masks"]]
    assert areas == sorted(areas, reverse=True)


def speckled(level: float, sigma: float, square: tuple[int, int] = (0, 0)) -> Image.Image:
    """Noise of one colour; `square`: side and contrast of an object on it."""
    noise = np.random.default_rng(0).normal(level, sigma, (480, 640, 3))
    side, contrast = square
    noise[100 : 100 + side, 300 : 300 + side] += contrast
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))


@pytest.mark.skipif(not shutil.which("node"), reason="no Node.js: install nodejs")
def test_the_page_takes_the_same_pictures_for_flat() -> None:
    flat = [speckled(0, 0), speckled(255, 0), speckled(120, 0), speckled(5, 4), speckled(100, 10)]
    full = [speckled(0, 0, (200, 5)), speckled(0, 0, (40, 30)), speckled(60, 4, (60, 40)), picture(200, 150)]
    seen = []
    for image in (*flat, *full):
        frame = Frame((image.height, image.width), 448)
        photo = {"width": image.width, "height": image.height, "input": frame.input_size[::-1]}
        seen.append({"rgb": resize(image, frame).ravel().tolist(), **photo})
    assert [is_flat(image, Crop((0, 0, *image.size), 0)) for image in (*flat, *full)] == [True] * 5 + [False] * 4
    command = ["node", "--input-type=module", "--eval", FLAT, str(WEB / "src" / "flat.js")]
    done = subprocess.run(command, input=json.dumps(seen), capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [True] * 5 + [False] * 4
