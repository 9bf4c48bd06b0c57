"""`tinysam-export`: checkpoint in, artifact folder out."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tinysam.runtime.cli import Parser
from tinysam.runtime.process import Interrupts

if TYPE_CHECKING:
    from tinysam.export.settings import ExportSettings
    from tinysam.models.variants import Variant

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def parser() -> argparse.ArgumentParser:
    """The command line; nothing heavy is imported for `--help`."""
    options = Parser(
        prog="tinysam-export",
        description="Export a tiny Segment-Anything model to ONNX and TFLite, fp32 and INT8.",
    )
    options.add_argument(
        "--variant", default="nano", help="model, as nano or tinysam; an unknown name lists all (default: nano)"
    )
    options.add_argument(
        "--checkpoint", type=Path, help="official .pth/.pt, or .safetensors (default: embedded weights)"
    )
    options.add_argument(
        "--size", type=int, help="side of the input: 1024 or a multiple of 224 (default: the variant's)"
    )
    options.add_argument("--precision", default="fp32,int8", help="fp32, fp16 (TFLite), int8 (default: fp32,int8)")
    options.add_argument("--format", default="onnx,tflite", help="onnx, tflite or both (default: onnx,tflite)")
    add_int8_options(options)
    options.add_argument(
        "--layout",
        default="tinysam",
        help="sam: also ONNX files that X-AnyLabeling, samexporter and other programs for SAM load (default: tinysam)",
    )
    options.add_argument("--out", type=Path, default=Path("artifacts"), help="parent of the artifact folder")
    return options


def add_int8_options(options: argparse.ArgumentParser) -> None:
    """Options of the INT8 files, which `tinysam-calibrate` has as well."""
    options.add_argument("--target", default="arm", help="processor of the INT8 ONNX files: arm or x86 (default: arm)")
    options.add_argument(
        "--calib-dir",
        type=Path,
        help="your photographs: folder, glob, .txt list or COCO .json "
        "(default: photographs that come with scikit-image)",
    )
    options.add_argument("--calib-count", type=int, default=32, help="how many of them to use (default: 32)")
    options.add_argument(
        "--least-mask-iou",
        type=float,
        default=0.95,
        help="mean IoU with the fp32 masks that INT8 has to keep in every engine (default: 0.95)",
    )
    options.add_argument(
        "--ranges",
        default="mse",
        help="how INT8 ranges are found: minmax, percentile, mse or search (default: mse)",
    )
    options.add_argument(
        "--max-drop",
        type=points,
        default=0.5,
        metavar="POINTS",
        help="points of mean IoU that INT8 may lose; blocks stay float until it does not lose more, and nothing is "
        "published if that does not help. none: publish in any case, with a warning (default: 0.5)",
    )


def points(text: str) -> float | None:
    """A number of points, or None for `none`."""
    return None if text.lower() == "none" else float(text)


def settings_from(arguments: argparse.Namespace, variant: "Variant", image_size: int) -> "ExportSettings":
    """What the command line asks for; ExportError if it makes no sense."""
    from tinysam.export.settings import ExportSettings

    return ExportSettings(
        variant=variant,
        checkpoint=arguments.checkpoint,
        image_size=image_size,
        precisions=tuple(arguments.precision.split(",")),
        formats=tuple(arguments.format.split(",")),
        target=arguments.target,
        calib=arguments.calib_dir,
        calib_count=arguments.calib_count,
        out=getattr(arguments, "out", Path()),
        least_mask_iou=arguments.least_mask_iou,
        ranges=arguments.ranges,
        max_drop=arguments.max_drop,
    )


def run(arguments: argparse.Namespace) -> None:
    """Exports as asked; raises what `export` raises."""
    from tinysam.export.pipeline import export
    from tinysam.export.sam_layout import check_layout, write_sam_layout
    from tinysam.models.variants import get_variant

    variant = get_variant(arguments.variant)
    settings = settings_from(arguments, variant, arguments.size or variant.image_size)
    check_layout(arguments.layout, settings.formats, settings.precisions)
    if export(settings):
        print(f"artifacts in {settings.folder}")
    else:
        print(f"{settings.folder} is up to date, nothing to do")
    if arguments.layout == "sam":
        print(f"SAM's layout in {write_sam_layout(settings.folder, settings.precisions)}")


def fail(program: str, error: BaseException, interrupts: Interrupts) -> int:
    """Says in one line on stderr what went wrong; the exit code."""
    if interrupts.asked:
        print(f"{program}: interrupted, nothing was published", file=sys.stderr)
        return EXIT_INTERRUPTED
    lines = str(error).splitlines() or [type(error).__name__]
    print(f"{program}: {lines[0]}", file=sys.stderr)
    return EXIT_FAILED


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 on success, 1 if the export failed, 2 for a wrong command line."""
    arguments = parser().parse_args(argv)
    interrupts = Interrupts()
    try:
        run(arguments)
    except (KeyboardInterrupt, ValueError, RuntimeError, OSError, MemoryError) as error:
        return fail("tinysam-export", error, interrupts)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
