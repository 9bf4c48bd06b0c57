"""`tinysam-export`: checkpoint in, artifact folder out."""

import argparse
import sys
from pathlib import Path

from tinysam.runtime.cli import Parser

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def parser() -> argparse.ArgumentParser:
    """The command line; nothing heavy is imported for `--help`."""
    options = Parser(
        prog="tinysam-export",
        description="Export a tiny Segment-Anything model to ONNX and TFLite, fp32 and INT8.",
    )
    options.add_argument("--variant", default="nano", help="nano, tinysam or mobilesam (default: nano)")
    options.add_argument(
        "--checkpoint", type=Path, help="official .pth/.pt, or .safetensors (default: embedded weights)"
    )
    options.add_argument(
        "--size", type=int, help="side of the input: 1024 or a multiple of 224 (default: the variant's)"
    )
    options.add_argument("--precision", default="fp32,int8", help="fp32, int8 or both (default: fp32,int8)")
    options.add_argument("--format", default="onnx,tflite", help="onnx, tflite or both (default: onnx,tflite)")
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
        default=0.7,
        help="mean IoU of INT8 and PyTorch masks below which nothing is published (default: 0.7)",
    )
    options.add_argument("--out", type=Path, default=Path("artifacts"), help="parent of the artifact folder")
    return options


def run(arguments: argparse.Namespace) -> None:
    """Exports as asked; raises what `export` raises."""
    from tinysam.export.pipeline import export
    from tinysam.export.settings import ExportSettings
    from tinysam.models.variants import get_variant

    variant = get_variant(arguments.variant)
    settings = ExportSettings(
        variant=variant,
        checkpoint=arguments.checkpoint,
        image_size=arguments.size or variant.image_size,
        precisions=tuple(arguments.precision.split(",")),
        formats=tuple(arguments.format.split(",")),
        target=arguments.target,
        calib=arguments.calib_dir,
        calib_count=arguments.calib_count,
        out=arguments.out,
        least_mask_iou=arguments.least_mask_iou,
    )
    if export(settings):
        print(f"artifacts in {settings.folder}")
    else:
        print(f"{settings.folder} is up to date, nothing to do")


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 on success, 1 if the export failed, 2 for a wrong command line."""
    arguments = parser().parse_args(argv)
    try:
        run(arguments)
    except KeyboardInterrupt:
        print("tinysam-export: interrupted, nothing was published", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        print(f"tinysam-export: {lines[0]}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
