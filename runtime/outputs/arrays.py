"""Masks as numpy arrays in one `.npz` file."""

import json
import zipfile
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tinysam.runtime.results import Result

_LEVEL = 1


def write_npz(result: Result, stream: IO[bytes]) -> None:
    """Writes `masks` bool (n, height, width) and, one entry for each mask, the numbers of `MaskRecord`.

    Masks go to the file one by one: hundreds of a large photograph would not fit into a small device's memory.
    """
    masks = result.masks
    small: dict[str, NDArray[Any]] = {
        "bboxes": np.array([mask.bbox for mask in masks], np.int64).reshape(-1, 4),
        "areas": np.array([mask.area for mask in masks], np.int64),
        "predicted_ious": np.array([mask.predicted_iou for mask in masks], np.float32),
        "stability_scores": np.array([mask.stability_score for mask in masks], np.float32),
        "image_size": np.array(result.image_size, np.int64),
        "info": np.array(json.dumps({"model": result.model, "backend": result.backend, "precision": result.precision})),
    }
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        with archive.open("masks.npy", "w", force_zip64=True) as member:
            header = {"descr": "|b1", "fortran_order": False, "shape": (len(masks), *result.image_size)}
            npy.write_array_header_1_0(member, header)  # type: ignore[no-untyped-call]
            for mask in masks:
                member.write(mask.mask().tobytes())
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w") as member:
                npy.write_array(member, array, allow_pickle=False)  # type: ignore[no-untyped-call]
