"""`tinysam-calibrate`: INT8 files and their report anew, from the fp32 files of an artifact folder."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from tinysam.export.cli import add_int8_options, fail, settings_from
from tinysam.runtime.cli import Parser
from tinysam.runtime.process import Interrupts


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
        ExportError: the folder has no fp32 ONNX files, or another name than its model.
        What `tinysam.export.pipeline.calibrate` raises.
    """
    from tinysam.export.errors import ExportError
    from tinysam.export.formats import OBSERVED
    from tinysam.export.pipeline import calibrate
    from tinysam.models.variants import get_variant
    from tinysam.runtime.locate import find_artifacts
    from tinysam.runtime.manifest import read_manifest

    source = find_artifacts(arguments.model).resolve()
    manifest = read_manifest(source)
    engines = tuple(dict.fromkeys(file.engine for file in manifest.files if file.precision == "fp32"))
    if OBSERVED.name not in engines:
        raise ExportError(
            f"{source} has no fp32 ONNX files, from which INT8 is made: export with --precision fp32,int8"
        )
    half = any(file.precision == "fp16" for file in manifest.files)
    arguments.precision, arguments.format = "fp32,fp16,int8" if half else "fp32,int8", ",".join(engines)
    variant = get_variant(manifest.variant)
    settings = replace(settings_from(arguments, variant, manifest.image_size), out=source.parent)
    if settings.folder != source:
        raise ExportError(
            f"{source}: the folder of {variant.name} at {manifest.image_size} is named {settings.folder.name}"
        )
    return calibrate(settings, report_only=arguments.report)


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
