"""An encoder with random weights as an artifact folder, for counting only: the instructions executed do not depend on
the weights, and official checkpoints need not be at hand. INT8 files are those of a model that bears fp16.

    python -m tinysam.device.cost.random_encoder tinysam 1024 build/arm/models
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tinysam.export.encoder_graph import graph_class
from tinysam.export.formats import WRITERS
from tinysam.export.int8.files import quantizers_of, write_int8
from tinysam.export.int8.part import Part, calibrate_parts
from tinysam.export.tensors import model_file
from tinysam.models.sam import MEAN, STD
from tinysam.models.variants import build, get_variant
from tinysam.runtime.manifest import Manifest, write_manifest

SEED = 0
IMAGES = 2
"""Random images that the activation ranges come from."""


def main(arguments: list[str] | None = None) -> int:
    """Export the encoder to ONNX and TFLite, fp32 and INT8, and print the folder; errors are one line and status 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant")
    parser.add_argument("size", type=int)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    try:
        print(export_encoder(options.variant, options.size, options.out))
    except (ValueError, OSError) as error:
        print(f"random_encoder: {error}", file=sys.stderr)
        return 1
    return 0


def export_encoder(name: str, size: int, out: Path) -> Path:
    """Write `out/<name>-<size>/` with an encoder of this variant; ValueError for a variant or size there is not."""
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    sam = build(get_variant(name), size)
    images = [random.standard_normal((1, 3, size, size), np.float32) for _ in range(IMAGES)]
    case: Any = SimpleNamespace(image=images[0])
    target = out / f"{name}-{size}"
    target.mkdir(parents=True, exist_ok=True)
    for writer in WRITERS.values():
        writer.write_encoder(sam, case, target / writer.form.file_name("encoder", "fp32"))
    blocks = graph_class(sam.image_encoder).BLOCKS
    calibration = calibrate_parts(target, {"encoder": [{"image": image} for image in images]}, {}, "mse")
    parts = {"encoder": Part(target, "encoder", calibration, "arm", blocks)}
    quantizers = quantizers_of(parts, tuple(WRITERS), half=True)
    files = [model_file(target, "encoder", "fp32", engine, size, 1) for engine in WRITERS]
    files += [file for engine in WRITERS for file in write_int8(quantizers[engine], {}, size, 1)]
    manifest = Manifest(
        variant=name,
        image_size=size,
        grid=sam.grid,
        mean=MEAN,
        std=STD,
        mask_tokens=(0,),
        files=tuple(files),
        source={"checkpoint": None, "seed": SEED},
    )
    write_manifest(manifest, target)
    return target


if __name__ == "__main__":
    sys.exit(main())
