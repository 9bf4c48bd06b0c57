"""The program that runs on the emulated board: masks of the runtime for photographs and prompts made on the host.

Started by `half.py` as a script with an artifact folder, backend, precision, an `.npz` with `image_<i>`, `coords_<i>`
(P, N, 2), `labels_<i>` (P, N) and perhaps `mask_input_<i>`, and the `.npz` to write `logits_<i>` (P, masks, side, side)
and `iou_<i>` (P, masks) to.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysam.runtime.graphs import Graphs
from tinysam.runtime.prompts import Prompts


def main(folder: str, backend: str, precision: str, source: str, destination: str) -> None:
    """Run every prompt of every photograph, with one thread."""
    graphs = Graphs(folder, backend, precision, 1)
    found: dict[str, NDArray[Any]] = {}
    with np.load(source) as given:
        for i in range(sum(name.startswith("image_") for name in given)):
            embedding = graphs.encode(given[f"image_{i}"])
            prompts = Prompts(given[f"coords_{i}"], given[f"labels_{i}"], given.get(f"mask_input_{i}"))
            found[f"logits_{i}"], found[f"iou_{i}"] = graphs.decode(embedding, prompts)
    np.savez(Path(destination), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
