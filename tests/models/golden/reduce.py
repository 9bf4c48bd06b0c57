"""Makes the arrays beside this file from the whole outputs of the official code.

    python -m tests.models.golden.reduce FOLDER

FOLDER holds `<model>.npz` and `<model>_state_dict.json`; see the module's docstring in `__init__.py`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.models.golden import EMBEDDING, FOLDER, LOW_RES, MASK_ROWS, RESIZED

SEEDS = {"tinysam": 0, "mobilesam": 3, "edgesam": 0, "repvitsam": 0, "sam_vit_b": 0, "sam_vit_l": 0, "sam_vit_h": 0}
WHOLE_FILES = {"tinysam": "tinysam_coffee", "sam_vit_b": "sam_vit_b_coffee"}
"""Models whose whole outputs on this photograph are in a file of another name."""
UPSCALED = ("box", 1)
"""The prompt and mask of TinySAM whose low-res mask and whose mask of the photograph are kept whole."""
AS_THEY_ARE = (
    "mask_input",
    "embedding_norm",
    "resized_hw",
    "iou",
    "point_coords",
    "point_labels",
    "boxes",
    "box",
)


def reduced(folder: Path, name: str) -> dict[str, Any]:
    """The arrays that are kept of a model."""
    listing = (folder / f"{name}_state_dict.json").read_bytes()
    found = {"state_dict": np.frombuffer(listing, np.uint8), "seed": np.int64(SEEDS[name])}
    path = folder / f"{WHOLE_FILES.get(name, name)}.npz"
    if not path.is_file():  # only the keys are known
        return found
    whole = np.load(path, allow_pickle=False)
    for key in whole.files:
        last = key.rsplit(".", 1)[-1]
        if key == "embedding":
            found[key] = whole[key][EMBEDDING]
        elif last == "low_res":
            found[key] = whole[key][LOW_RES]
        elif last == "masks" and name == "mobilesam":
            found[key] = whole[key][MASK_ROWS]
        elif key == "resized":
            found[key] = whole[key][RESIZED]
        elif last in AS_THEY_ARE:
            found[key] = whole[key]
    if name == "tinysam":
        prompt, mask = UPSCALED
        found["upscaled.low_res"] = whole[f"{prompt}.low_res"][:, mask]
        found["upscaled.masks"] = whole[f"{prompt}.masks"][mask : mask + 1]
    return found


def main() -> None:
    """Writes every model's file."""
    for name in SEEDS:
        np.savez_compressed(FOLDER / f"{name}.npz", **reduced(Path(sys.argv[1]), name))


if __name__ == "__main__":
    main()
