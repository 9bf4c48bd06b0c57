"""`python -m tinysam.evaluation.naive`: the INT8 files that ONNX Runtime's own quantizer makes, to compare with ours.

Every operation it supports becomes integer, with one scale per tensor for activations and for weights, between the
smallest and the largest value that was seen: what `quantize_static` does when nothing is said. With `per_channel=True`
its decoder does not run (a product of matrices has a scale per channel that the kernel refuses). Images and prompts are
those of `tinysam-export`.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from tinysam.calibration.arrays import Floats
from tinysam.calibration.feeds import image_feeds
from tinysam.calibration.images import load_image_set
from tinysam.export.int8.files import calibration_runs, part_feeds
from tinysam.export.tensors import model_file
from tinysam.runtime.engines.formats import ONNX
from tinysam.runtime.graphs import Graphs
from tinysam.runtime.manifest import PARTS, read_manifest, write_manifest
from tinysam.runtime.process import run_command


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds one after the other, None at the end."""

    def __init__(self, feeds: Iterable[dict[str, Floats]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Floats] | None:
        """The next feed."""
        return next(self._feeds, None)


def write_naive(source: Path, destination: Path, count: int, signed: bool) -> None:
    """Writes an artifact folder with naive INT8 ONNX files.

    Args:
        source: artifact folder with fp32 ONNX files.
        destination: new folder.
        count: calibration images.
        signed: whether activations are int8 (ARM) or uint8 (x86).
    """
    destination.mkdir(parents=True)
    manifest = read_manifest(source)
    images = load_image_set(None, count, long_side=manifest.image_size).images
    runs = calibration_runs(Graphs(source, ONNX.name, "fp32"), list(image_feeds(images, manifest)), 0)
    for part in PARTS:
        quantize_static(
            source / ONNX.file_name(part, "fp32"),
            destination / ONNX.file_name(part, "int8"),
            Reader(part_feeds(part, runs)),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    masks = len(manifest.mask_tokens)
    files = tuple(model_file(destination, part, "int8", ONNX.name, manifest.image_size, masks) for part in PARTS)
    write_manifest(replace(manifest, files=files), destination)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    options = argparse.ArgumentParser(prog="python -m tinysam.evaluation.naive", description=__doc__)
    options.add_argument("source", type=Path, help="artifact folder with fp32 ONNX files")
    options.add_argument("destination", type=Path, help="folder to make")
    options.add_argument("--calib-count", type=int, default=32)
    options.add_argument("--target", choices=("arm", "x86"), default="arm")
    arguments = options.parse_args(argv)
    signed = arguments.target == "arm"
    return run_command(
        "naive", lambda: write_naive(arguments.source, arguments.destination, arguments.calib_count, signed)
    )


if __name__ == "__main__":
    sys.exit(main())
