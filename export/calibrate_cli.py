"""`tinysam-calibrate`: INT8 files and their report anew, from the fp32 files of an artifact folder."""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from tinysam.export.cli import add_int8_options, fail, settings_from
from tinysam.runtime.cli import Parser
from tinysam.runtime.interrupts import Interrupts


def parser() -> argparse.ArgumentParser:
    """The command line; nothing heavy is imported for `--help`."""
    options = Parser(
        prog="tinysam-calibrate",
        description="Quantize the fp32 files of an artifact folder again: other photographs, ranges or budget. "
        "Judges every block and the whole on masks, and writes report.html and report.json beside the files.",
    )
    options.add_argument("model", type=Path, nargs="?", help="artifact folder (default: the one tinysam-run uses)")
    options.add_argument("--checkpoint", type=Path, help="weights it was exported from (default: embedded weights)")
    options.add_argument(
        "--report", action="store_true", help="write the report only, leave the INT8 files as they are"
    )
    add_int8_options(options)
    return options


def run(arguments: argparse.Namespace) -> Path:
    """Quantizes as asked; the path of the report.

    Raises:
        ExportError: no fp32 ONNX files, or they belong to another checkpoint.
        What `tinysam.export.pipeline.export` raises.
    """
    from tinysam.calibration.feeds import image_feeds
    from tinysam.calibration.images import load_image_set
    from tinysam.export.errors import ExportError
    from tinysam.export.int8.pipeline import Quantization, quantization_steps
    from tinysam.export.pipeline import cache_path
    from tinysam.export.progress import Progress
    from tinysam.export.publish import publish, workspace
    from tinysam.export.reference import reference_cases
    from tinysam.export.settings import fingerprint
    from tinysam.models.checkpoint import load, weights_path
    from tinysam.models.variants import get_variant
    from tinysam.runtime.locate import find_artifacts
    from tinysam.runtime.manifest import read_manifest, sha256_file, verify_file, write_manifest

    source = find_artifacts(arguments.model).resolve()
    manifest = read_manifest(source)
    floats = [file for file in manifest.files if file.precision == "fp32"]
    engines = tuple(dict.fromkeys(file.engine for file in floats))
    if "onnx" not in engines:
        raise ExportError(
            f"{source} has no fp32 ONNX files, from which INT8 is made: export with --precision fp32,int8"
        )
    variant = get_variant(manifest.variant)
    sha256 = sha256_file(weights_path(variant, arguments.checkpoint))
    if sha256 != manifest.source.get("sha256"):
        raise ExportError(
            f"{source} was exported from {manifest.source.get('checkpoint')}, other weights than given: "
            "give that file with --checkpoint"
        )
    half = any(file.precision == "fp16" for file in manifest.files)
    arguments.precision, arguments.format = "fp32,fp16,int8" if half else "fp32,int8", ",".join(engines)
    settings = replace(settings_from(arguments, variant, manifest.image_size), out=source.parent)
    if settings.folder != source:
        raise ExportError(
            f"{source}: the folder of {variant.name} at {manifest.image_size} is named {settings.folder.name}"
        )
    sam = load(variant, arguments.checkpoint, manifest.image_size)
    images = load_image_set(settings.calib, settings.calib_count, settings.seed, settings.image_size)
    key = fingerprint(settings, sha256, images.sha256)
    cache = cache_path(settings, key)
    with workspace(source) as folder:
        for file in floats:
            shutil.copy(verify_file(source, file), folder)
        feeds = list(image_feeds(images.images, manifest))
        cases = reference_cases(sam, settings.mask_tokens, feeds)
        progress = Progress(quantization_steps(settings))
        job = Quantization(sam, settings, images, feeds, cases, floats, folder, progress)
        files = job.run(cache)
        if arguments.report:
            for path in folder.glob("report.*"):
                shutil.copy(path, source)
        else:
            made = replace(manifest, files=(*floats, *files), source={**manifest.source, "fingerprint": key})
            write_manifest(made, folder)
            publish(folder, source)
    cache.unlink(missing_ok=True)
    return source / "report.html"


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 on success, 1 if nothing could be published, 2 for a wrong command line."""
    arguments = parser().parse_args(argv)
    interrupts = Interrupts()
    try:
        print(f"report in {run(arguments)}")
    except (KeyboardInterrupt, ValueError, RuntimeError, OSError, MemoryError) as error:
        return fail("tinysam-calibrate", error, interrupts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
