"""The program that runs on the emulated board: masks of TFLite files for photographs and prompts made on the host.

Needs numpy and LiteRT only; started by `half.py` as a script with the encoder, the decoder, an `.npz` with `image_<i>`,
`coords_<i>` (P, 2, 2) and `labels_<i>` (P, 2), and the `.npz` to write `masks_<i>` and `iou_<i>` to.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

SIGNATURE = "decode_1x2"


def main(encoder: str, decoder: str, source: str, destination: str) -> None:
    """Run every prompt of every photograph."""
    from ai_edge_litert.interpreter import Interpreter

    loaded = [Interpreter(model_path=path, num_threads=1) for path in (encoder, decoder)]
    encode = loaded[0].get_signature_runner("encode")
    decode = loaded[1].get_signature_runner(SIGNATURE)
    side = decode.get_input_details()["mask_input"]["shape"]
    without_mask = {"mask_input": np.zeros(side, np.float32), "has_mask_input": np.zeros(1, np.float32)}
    found: dict[str, Any] = {}
    with np.load(source) as given:
        for i in range(sum(name.startswith("image_") for name in given)):
            embedding = encode(image=given[f"image_{i}"])["image_embeddings"]
            answers = [
                decode(image_embeddings=embedding, point_coords=c[None], point_labels=n[None], **without_mask)
                for c, n in zip(given[f"coords_{i}"], given[f"labels_{i}"], strict=True)
            ]
            found[f"masks_{i}"] = np.concatenate([answer["low_res_masks"] > 0 for answer in answers])
            found[f"iou_{i}"] = np.concatenate([answer["iou_predictions"] for answer in answers])
    np.savez(Path(destination), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
