"""The program that runs on the emulated board: masks of the runtime for photographs and prompts made on the host.

Started by `half.py` as a script with an artifact folder, backend, precision, an `.npz` with `image_<i>`, `coords_<i>`
(P, 2, 2) and `labels_<i>` (P, 2), and the `.npz` to write `masks_<i>` and `iou_<i>` to.
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
            logits, iou = graphs.decode(embedding, Prompts(given[f"coords_{i}"], given[f"labels_{i}"]))
            found[f"masks_{i}"], found[f"iou_{i}"] = logits > 0, iou
    np.savez(Path(destination), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
