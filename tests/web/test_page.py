"""The page in headless Chromium, against the Python runtime over the same files."""

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from skimage import data

from tests.web.conftest import Browser, unpack_mask
from tinysam.runtime import Segmenter, cli, segment_everything
from tinysam.runtime.everything.settings import EverythingSettings
from tinysam.runtime.objects import segment
from tinysam.runtime.prompts import ObjectPrompt

Mask = np.ndarray[Any, np.dtype[np.bool_]]
SAME = 0.9999
"""Mean IoU of all masks with the same arithmetic: what the page does before and after the graphs is exact."""
CHANCE = 0.01
"""How much of the INT8 masks' mean IoU is chance. The two sides run different kernels, and a deep INT8 graph rounds
otherwise where float results differ by one part in a million, as it does with such noise in the input."""
TOOLBOX = '[data-tool="box"]'
BOX_AROUND_AN_EYE = ("press", TOOLBOX), ("drag", 400, 260, 560, 400)
"""Of the cat; a small object."""


def choose(precision: str) -> str:
    """Code that selects a precision as a person does."""
    select = "document.querySelector('#precision')"
    return f"{select}.value = '{precision}'; {select}.dispatchEvent(new Event('change', {{bubbles: true}}))"


def iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two photographs of different shape, one as JPEG larger than the model's input, one as PNG smaller."""
    folder = tmp_path_factory.mktemp("photographs")
    cat = Image.fromarray(data.chelsea()).resize((1353, 900), Image.Resampling.LANCZOS)
    cat.save(folder / "cat.jpg", quality=92)
    Image.fromarray(data.coffee()).resize((300, 200), Image.Resampling.LANCZOS).save(folder / "coffee.png")
    return {"cat": folder / "cat.jpg", "coffee": folder / "coffee.png"}


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_masks_equal_the_python_runtimes(
    browser: Browser, site: str, artifacts_dir: Path, photographs: dict[str, Path], precision: str
) -> None:
    found, quantized = [], []
    for photograph in photographs.values():
        width, height = Image.open(photograph).size
        first, second = (round(0.5 * width), round(0.45 * height)), (round(0.3 * width), round(0.6 * height))
        shares = zip((0.2, 0.1, 0.8, 0.9), (width, height) * 2, strict=True)
        prompts = [
            {"points": [first], "labels": [1], "box": None},
            {"points": [first, second], "labels": [1, 0], "box": None},
            {"points": [], "labels": [], "box": [round(share * side) for share, side in shares]},
        ]
        # Prompts go in by the scripting interface, so that both sides get the same numbers.
        steps: list[tuple[Any, ...]] = [("evaluate", choose(precision)), ("open", str(photograph))]
        for prompt in prompts:
            points = [[*point, label] for point, label in zip(prompt["points"], prompt["labels"], strict=True)]
            for choice in range(1, 4):  # mask 0 comes first
                request = json.dumps({"points": points, "box": prompt["box"], "choice": choice, "raw": True})
                steps += [("evaluate", f"window.tinysam.call('predict', {request}).then(() => null)"), ("mask",)]
        shown = map(unpack_mask, browser.run(site, *steps)["results"][3::2])
        same, exact = (Segmenter(artifacts_dir, "tflite", wanted) for wanted in (precision, "fp32"))
        same.set_image(Image.open(photograph))
        exact.set_image(Image.open(photograph))
        for prompt in prompts:
            points, labels = (prompt["points"], prompt["labels"]) if prompt["points"] else (None, None)
            masks, references = (one.predict(points, labels, prompt["box"]).masks for one in (same, exact))
            found += [iou(next(shown), mask) for mask in masks]
            quantized += list(map(iou, masks, references))
    assert len(found) == 18
    # INT8 masks of the page are as near to Python's as these are to the fp32 masks.
    assert np.mean(found) >= (SAME if precision == "fp32" else np.mean(quantized) - CHANCE), found


def test_a_closer_look_shows_what_python_shows(
    browser: Browser, site: str, artifacts_dir: Path, photographs: dict[str, Path]
) -> None:
    prompts = [
        ObjectPrompt(box=(400.0, 260.0, 560.0, 400.0)),  # an eye
        ObjectPrompt(((470.0, 330.0, 1),)),
        ObjectPrompt(((470.0, 330.0, 1), (560.0, 420.0, 0))),
    ]
    steps: list[tuple[Any, ...]] = [("evaluate", choose("fp32")), ("open", str(photographs["cat"]))]
    for prompt in prompts:
        request = json.dumps({"points": prompt.points, "box": prompt.box})
        asked = f"window.tinysam.call('predict', {request}).then(() => null)"
        closer = f"window.tinysam.call('closer', {request}).then((answer) => Boolean(answer.overlay))"
        steps += [("evaluate", asked), ("mask",), ("evaluate", closer), ("mask",)]
    results = browser.run(site, *steps)["results"][2:]
    segmenter = Segmenter(artifacts_dir, "tflite", "fp32")
    image = Image.open(photographs["cat"])
    closer_looks = [segment(segmenter, image, [prompt]).masks[0] for prompt in prompts]
    assert results[2::4] == [look.crop_box is not None for look in closer_looks]
    assert any(look.crop_box for look in closer_looks[1:]) and closer_looks[0].crop_box
    for first, last, prompt, look in zip(results[1::4], results[3::4], prompts, closer_looks, strict=True):
        whole = segment(segmenter, image, [prompt], zoom_in=False).masks[0]
        assert iou(unpack_mask(first), whole.mask()) > 0.998
        assert iou(unpack_mask(last), look.mask()) > 0.99
        assert iou(unpack_mask(first), unpack_mask(last)) < 0.99 or look.crop_box is None


def test_a_small_object_is_looked_at_closer(browser: Browser, site: str, photographs: dict[str, Path]) -> None:
    report = browser.run(site, ("open", str(photographs["cat"])), *BOX_AROUND_AN_EYE, ("mask",))
    request = json.dumps({"points": [], "box": [400, 260, 560, 400]})
    whole = browser.run(
        site,
        ("open", str(photographs["cat"])),
        ("evaluate", f"window.tinysam.call('predict', {request}).then(() => null)"),
        ("mask",),
    )
    shown, first = (unpack_mask(one["results"][-1]) for one in (report, whole))
    assert 0.3 < iou(shown, first) < 0.99


def test_a_closer_look_that_fails_leaves_the_first_mask_and_its_click(
    browser: Browser, site: str, photographs: dict[str, Path]
) -> None:
    fails = (
        "{ const send = Worker.prototype.postMessage; Worker.prototype.postMessage = function (message, ...rest) {"
        " return send.call(this, message.command === 'closer' ? { ...message, points: null } : message, ...rest); }; }"
    )
    steps = ("evaluate", fails), ("click", 470, 330), ("mask",), ("text", "#message"), ("press", '[data-do="undo"]')
    report = browser.run(site, ("open", str(photographs["cat"])), *steps, ("enabled", '[data-do="undo"]'))
    _, _, _, mask, message, _, can_undo = report["results"]
    assert unpack_mask(mask)[330, 470]
    assert "Something went wrong" in message
    assert not can_undo


def test_pressing_the_shown_candidate_keeps_the_closer_look(
    browser: Browser, site: str, photographs: dict[str, Path]
) -> None:
    checked = "document.querySelector('#candidates [aria-checked=\"true\"]').click()"
    again = ("evaluate", checked), ("press", TOOLBOX), ("mask",)
    report = browser.run(site, ("open", str(photographs["cat"])), *BOX_AROUND_AN_EYE, ("mask",), *again)
    before, after = (unpack_mask(report["results"][place]) for place in (3, 6))
    np.testing.assert_array_equal(before, after)


def test_a_person_clicks_drags_and_saves(
    browser: Browser, site: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    saved, start = tmp_path / "mask.png", time.monotonic()
    report = browser.run(
        site,
        ("visible", "#welcome"),
        ("enabled", '[data-do="download"]'),
        ("open", str(photographs["cat"])),
        ("click", 676, 400),
        ("mask",),
        ("visible", "#welcome"),  # it fades out
        ("download", str(saved)),
        ("press", '[data-do="clear"]'),
        ("enabled", '[data-do="download"]'),
        ("press", TOOLBOX),
        ("drag", 200, 60, 1200, 840),
        ("mask",),
        ("text", "#status"),
        ("evaluate", "self.crossOriginIsolated"),
    )
    welcome, no_mask, _, _, clicked, welcome_after, name, _, cleared, _, _, boxed, status, isolated = report["results"]
    assert welcome
    assert not welcome_after
    assert not no_mask
    assert not cleared
    mask = unpack_mask(clicked)
    assert mask[400, 676]
    assert name == "cat.mask.png"
    with Image.open(saved) as png:
        assert png.mode == "L"
        assert (np.asarray(png) == mask * 255).all()
    assert unpack_mask(boxed)[450, 700]
    assert "INT8" in status
    times = {stage: int(ms) for stage, ms in re.findall(r"(photograph|click) (\d+) ms", status)}
    assert set(times) == {"photograph", "click"}
    assert 0 < sum(times.values()) < 1000 * (time.monotonic() - start)
    assert isolated
    assert "threads" in status


def test_a_prompt_that_does_not_fit_leaves_the_earlier_one(
    browser: Browser, site: str, photographs: dict[str, Path]
) -> None:
    painted = "document.querySelector('#view').toDataURL()"
    picture = f"new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done({painted}))))"
    clicks = [("click", 6 * n + 30, 100) for n in range(31)]
    steps = ("evaluate", picture), ("press", TOOLBOX), ("drag", 40, 40, 250, 160), ("text", "#message")
    report = browser.run(site, ("open", str(photographs["coffee"])), *clicks, *steps, ("evaluate", picture))
    *_, before, _, _, message, after = report["results"]
    assert "at most 31 points, or 30 and a box" in message
    assert after == before


def test_the_choices_do_not_cover_what_was_asked_for(browser: Browser, site: str, photographs: dict[str, Path]) -> None:
    is_above = """(() => { const row = document.querySelector('#candidates').getBoundingClientRect();
        const view = document.querySelector('#view').getBoundingClientRect();
        return (row.top + row.bottom) / 2 < (view.top + view.bottom) / 2; })()"""
    high, low = ("drag", 100, 2, 200, 60), ("drag", 100, 140, 200, 198)
    steps = ("press", TOOLBOX), high, ("evaluate", is_above), low, ("evaluate", is_above)
    *_, above_at_high, _, above_at_low = browser.run(site, ("open", str(photographs["coffee"])), *steps)["results"]
    assert not above_at_high
    assert above_at_low


def test_another_precision_looks_at_the_photograph_again(
    browser: Browser, site: str, photographs: dict[str, Path]
) -> None:
    steps = ("open", str(photographs["coffee"])), ("evaluate", choose("fp32")), ("press", TOOLBOX), ("text", "#status")
    status = browser.run(site, *steps)["results"][-1]
    assert "FP32" in status
    assert "photograph" in status


def test_a_tap_on_a_phone_segments(browser: Browser, site: str, photographs: dict[str, Path]) -> None:
    phone = {"viewport": {"width": 390, "height": 780}, "touch": True}
    fits = "document.documentElement.scrollWidth <= innerWidth"
    sizes = "Math.min(...[...document.querySelectorAll('nav button')].map((b) => b.getBoundingClientRect().height))"
    report = browser.run(
        site,
        ("open", str(photographs["cat"])),
        ("click", 676, 400),
        ("mask",),
        ("evaluate", fits),
        ("evaluate", sizes),
        **phone,
    )
    _, _, mask, fits_screen, smallest_button_px = report["results"]
    assert unpack_mask(mask)[400, 676]
    assert fits_screen
    assert smallest_button_px >= 44


def test_one_file_works_from_the_disk_without_a_network(
    browser: Browser, single: str, artifacts_dir: Path, photographs: dict[str, Path]
) -> None:
    predict = "window.tinysam.call('predict', {points: [[150, 100, 1]], box: null}).then(() => null)"
    report = browser.run(
        single, ("open", str(photographs["coffee"])), ("evaluate", predict), ("mask",), ("text", "#status")
    )
    mask = unpack_mask(report["results"][2])
    segmenter = Segmenter(artifacts_dir, "tflite", "int8")
    segmenter.set_image(Image.open(photographs["coffee"]))
    wanted = segmenter.predict([(150, 100)], [1], multimask_output=None, clean=True).masks[0]
    assert iou(mask, wanted) >= 0.9
    assert "1 thread" in report["results"][3]
    assert {url.split(":")[0] for url in report["requests"]} <= {"file", "blob", "data"}


@pytest.mark.parametrize("raw", [True, False], ids=["as the model gave it", "cleaned"])
def test_the_command_the_call_and_the_page_give_the_same_mask(
    browser: Browser, site: str, artifacts_dir: Path, photographs: dict[str, Path], tmp_path: Path, raw: bool
) -> None:
    photograph, common = (
        photographs["coffee"],
        ["--backend", "tflite", "--precision", "fp32", "--format", "mask", "--quiet"],
    )
    asked: list[tuple[list[list[int]], list[int] | None]] = [
        ([[150, 100, 1]], None),
        ([[150, 100, 1], [60, 140, 0]], None),
        ([], [60, 30, 240, 180]),
        ([[150, 100, 1], [20, 20, 0]], [10, 15, 280, 190]),
    ]
    steps: list[tuple[Any, ...]] = [("evaluate", choose("fp32")), ("open", str(photograph))]
    for points, box in asked:
        request = json.dumps({"points": points, "box": box, "raw": raw})
        steps += [("evaluate", f"window.tinysam.call('predict', {request}).then(() => null)"), ("mask",)]
    shown = [unpack_mask(result) for result in browser.run(site, *steps)["results"][3::2]]
    segmenter = Segmenter(artifacts_dir, "tflite", "fp32")
    segmenter.set_image(Image.open(photograph))
    for number, ((points, box), page) in enumerate(zip(asked, shown, strict=True)):
        coords, labels = [point[:2] for point in points] or None, [point[2] for point in points] or None
        call = segmenter.predict(coords, labels, box, multimask_output=None, clean=not raw).masks[0]
        prompts = [f"--point={x},{y},{label}" for x, y, label in points]
        prompts += [f"--box={','.join(map(str, box))}"] if box else []
        out = tmp_path / str(number)
        options = [*common, *prompts, "--model", str(artifacts_dir), "--out", str(out), *(["--raw"] if raw else [])]
        assert cli.main([str(photograph), *options]) == 0
        (written,) = out.glob("*.png")
        np.testing.assert_array_equal(np.asarray(Image.open(written)) > 0, call)
        assert iou(page, call) >= 0.999


@pytest.mark.parametrize("name", ["cat", "coffee"])
def test_everything_is_what_the_python_runtime_finds(
    browser: Browser, site: str, artifacts_dir: Path, photographs: dict[str, Path], name: str
) -> None:
    fewer = "window.tinysam.call('everything', {pointsPerSide: 12, list: true}).then(({found}) => found)"
    report = browser.run(site, ("evaluate", choose("fp32")), ("open", str(photographs[name])), ("evaluate", fewer))
    page = report["results"][2]
    segmenter = Segmenter(artifacts_dir, "tflite", "fp32")
    settings = EverythingSettings.of_model(segmenter.manifest.everything, points_per_side=12)
    picture = Image.open(photographs[name])
    expected = segment_everything(segmenter, picture, settings).masks
    masks = [rows(found["counts"], (picture.height, picture.width)) for found in page]
    assert len(expected) > 3
    assert abs(len(masks) - len(expected)) <= 1  # a mask may lie on a threshold
    for record in expected[:-1]:
        best = max(range(len(masks)), key=lambda k: iou(masks[k], record.mask()))
        assert iou(masks[best], record.mask()) > 0.99
        assert page[best]["iou"] == pytest.approx(record.predicted_iou, abs=1e-3)


def rows(counts: list[int], size: tuple[int, int]) -> Mask:
    """Row-wise run lengths, background first, as bool (height, width)."""
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size)


def test_a_file_that_is_no_picture_gives_a_readable_message(browser: Browser, site: str, tmp_path: Path) -> None:
    wrong = tmp_path / "notes.jpg"
    wrong.write_text("not a picture")
    report = browser.run(
        site, ("open", str(wrong)), ("waitVisible", "#message"), ("text", "#message"), ("visible", "#welcome")
    )
    assert "not a picture that the browser can read" in report["results"][2]
    assert report["results"][3]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_photograph_of_50_megapixels_is_refused_with_its_size(
    browser: Browser, site: str, tmp_path: Path, suffix: str
) -> None:
    large = tmp_path / f"large.{suffix}"
    Image.new("L", (10_000, 5_000)).save(large)
    report = browser.run(site, ("open", str(large)), ("waitVisible", "#message"), ("text", "#message"))
    assert "10000 × 5000 is 50 megapixels, at most 40" in report["results"][2]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_photograph_too_large_is_refused_by_its_header_alone(
    browser: Browser, site: str, tmp_path: Path, suffix: str
) -> None:
    whole, header = tmp_path / f"whole.{suffix}", tmp_path / f"header.{suffix}"
    Image.new("L", (10_000, 5_000)).save(whole)
    header.write_bytes(whole.read_bytes()[:400])
    report = browser.run(site, ("open", str(header)), ("waitVisible", "#message"), ("text", "#message"))
    assert "10000 × 5000 is 50 megapixels, at most 40" in report["results"][2]


def test_a_browser_without_wasm_simd_is_told_so(browser: Browser, site: str) -> None:
    report = browser.run(
        site, ("waitVisible", "#message"), ("text", "#message"), flags=["--js-flags=--no-enable-sse4-1"], ready=False
    )
    assert "WebAssembly SIMD" in report["results"][1]


def test_a_camera_that_is_not_allowed(browser: Browser, site: str) -> None:
    steps = ("press", '#welcome [data-do="camera"]'), ("waitVisible", "#message"), ("text", "#message")
    report = browser.run(site, *steps, flags=["--use-fake-ui-for-media-stream=deny"])
    assert "allow it in the browser's settings" in report["results"][2]


def test_the_camera_takes_a_photograph(browser: Browser, site: str) -> None:
    take = 'document.querySelector("[data-camera=shoot]").click()'
    report = browser.run(
        site,
        ("press", '#welcome [data-do="camera"]'),
        ("waitVisible", "#camera video"),
        ("evaluate", "new Promise((done) => setTimeout(done, 1000))"),
        ("evaluate", take),
        ("evaluate", "new Promise((done) => setTimeout(done, 2500))"),
        ("visible", "#welcome"),
        ("evaluate", "window.tinysam.size()"),
    )
    assert not report["results"][5]
    assert report["results"][6]["width"] > 0


@pytest.mark.parametrize(
    ("pattern", "body", "expected"),
    [
        ("**/manifest.json", '{"schema": 1, "files": []}', "format 1, the page reads format 2"),
        ("**/encoder.int8.tflite", "cut off", "encoder.int8.tflite has 7 bytes, the manifest says"),
    ],
    ids=["another manifest version", "damaged model"],
)
def test_a_model_that_does_not_fit_is_refused(
    browser: Browser, site: str, pattern: str, body: str, expected: str
) -> None:
    enabled = "document.querySelectorAll('[data-do]:enabled').length"
    steps = [("waitVisible", "#message"), ("text", "#message"), ("evaluate", enabled)]
    _, message, enabled_buttons = browser.run(site, *steps, ready=False, replace={pattern: body})["results"]
    assert expected in message
    assert enabled_buttons == 0


def test_a_decoder_of_an_earlier_export_is_refused(browser: Browser, site: str) -> None:
    zeros, manifest = "0" * 64, json.loads(urlopen(f"{site}/model/manifest.json").read())
    for file in manifest["files"]:
        file["signatures"].pop("prepare", None)
    text = json.dumps({**manifest, "content_sha256": zeros})
    body = text.replace(zeros, hashlib.sha256(text.encode()).hexdigest())
    steps = [("waitVisible", "#message"), ("text", "#message")]
    _, message = browser.run(site, *steps, ready=False, replace={"**/manifest.json": body})["results"]
    assert "decoder.int8.tflite lacks prepare: export the model again." in message


@pytest.mark.parametrize("address", ["%", "..%2f..%2fsecret"])
def test_the_server_refuses_an_address_outside_the_page(site: str, address: str) -> None:
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"{site}/{address}")
    assert urlopen(site).status == 200
