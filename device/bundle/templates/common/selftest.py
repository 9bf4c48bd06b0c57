"""Self-test of an installation: segments the bundled picture and compares with the masks made when it was packed.

    python selftest.py [tflite|onnx]

Prints one line per precision with the times of this machine; exits 1 if a mask differs.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tinysam.runtime import Segmenter
from tinysam.runtime.errors import TinySamError

FOLDER = Path(__file__).resolve().parent
MIN_IOU = {"int8": 0.9, "fp16": 0.98, "fp32": 0.999}
"""INT8 graphs round differently wherever the processors' float results differ in the last bit; docs/raspberry-pi.md."""


def main() -> int:
    """Run every case of the given engine, or of all."""
    cases = json.loads((FOLDER / "selftest/selftest.json").read_text())
    chosen = [case for case in cases["cases"] if case["backend"] in (sys.argv[1:] or [case["backend"]])]
    if not chosen:
        print(f"selftest: no model for {sys.argv[1:]} in this bundle", file=sys.stderr)
        return 1
    try:
        return max(check(case, cases["point"]) for case in chosen)
    except (TinySamError, ImportError, OSError) as error:
        print(f"selftest: {error}", file=sys.stderr)
        return 1


def check(case: dict[str, str], point: list[int]) -> int:
    """One engine and precision; 0 if its mask is the expected one."""
    segmenter = Segmenter(FOLDER / "model", case["backend"], case["precision"])
    picture = Image.open(FOLDER / "selftest/picture.jpg")
    segmenter.set_image(picture)  # the first run of an engine is slower
    segmenter.set_image(picture)
    start = time.perf_counter()
    mask = segmenter.predict([point], [1], multimask_output=False).masks[0]
    decoder_ms = 1e3 * (time.perf_counter() - start)
    expected = np.asarray(Image.open(FOLDER / "selftest" / case["mask"]))
    iou = (mask & expected).sum() / (mask | expected).sum()
    same = "identical" if (mask == expected).all() else f"IoU {iou:.5f}"
    encoder_ms = segmenter.timing_ms["encoder"]
    name = f"{case['backend']} {case['precision']}"
    print(f"  {name}: encoder {encoder_ms:.0f} ms, prompt {decoder_ms:.0f} ms, mask {same}")
    if iou < MIN_IOU[case["precision"]]:
        print(f"selftest: {name}: mask differs from the expected one (IoU {iou:.4f})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
