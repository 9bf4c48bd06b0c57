"""The command `tinysam-run`: reads arguments, then hands over to `tinysam.runtime.command`.

Nothing heavy is imported before the arguments are known to be good: `--help` answers at once.
"""

import argparse
import gc
import math
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from tinysam.runtime.engines.formats import FORMATS as FILE_FORMATS
from tinysam.runtime.errors import (
    EXIT_ARTIFACTS,
    EXIT_ENGINE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OUTPUT,
    EXIT_USAGE,
)
from tinysam.runtime.outputs import FORMATS
from tinysam.runtime.process import reserve_blas_memory, use_one_blas_thread
from tinysam.runtime.terminal import prepare_streams

_EXIT_CODES = f"""\
exit codes:
  0    everything was done
  {EXIT_FAILED}    at least one picture failed (unreadable, or a prompt does not fit it); the others were done
  {EXIT_USAGE}    the command line makes no sense
  {EXIT_ARTIFACTS}    no model found, or its artifacts are damaged or lack this backend and precision
  {EXIT_ENGINE}    the engine is not installed
  {EXIT_OUTPUT}    a result cannot be written
  {EXIT_INTERRUPTED}  interrupted
"""
_SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")
"""Between the parts of a list."""
_LIST = re.compile(r"-[\d.]")
"""What a list that begins with a negative number looks like; no option does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    prepare_streams()
    options = parser().parse_args(arguments)
    code: int = _import_command().run(options)
    return code


def _import_command() -> ModuleType:
    """Imports `tinysam.runtime.command`; if this process has no NumPy yet, at less cost than a plain import has."""
    name = "tinysam.runtime.command"
    if "numpy" in sys.modules:
        return import_module(name)
    use_one_blas_thread()
    # What an import makes is no garbage: no collection has to look at it, now or at the end.
    gc.disable()
    try:
        command = import_module(name)
    finally:
        gc.enable()
    gc.freeze()
    reserve_blas_memory()
    return command


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, without the whole usage; takes values such as -10,-10,50,50."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Joins an option and a value that begins with a negative number, which would be taken for an option."""
        joined: list[str] = []
        for argument in sys.argv[1:] if args is None else args:
            if joined and joined[-1].startswith("--") and len(joined[-1]) > 2 and _LIST.match(argument):
                joined[-1] += f"={argument}"
            else:
                joined.append(argument)
        return super().parse_known_args(joined, namespace)

    def error(self, message: str) -> NoReturn:
        """Prints the error and exits with code 2."""
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(
        prog="tinysam-run",
        description="Segment photographs: the objects you point at, or everything if you point at nothing.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(top)
    top.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="picture, video, folder, pattern such as 'photos/*.jpg', or - for stdin",
    )
    top.add_argument("--camera", type=int, metavar="N", help="follow the prompts through the pictures of camera N")
    top.add_argument("--frames", type=positive, metavar="N", help="of a video or camera: stop after N frames")
    prompts = top.add_argument_group("what to segment (pixels of the upright photograph, from its top left corner)")
    prompts.add_argument(
        "--point",
        type=point,
        action="append",
        default=[],
        metavar="X,Y[,LABEL]",
        help="a point on the object (LABEL 1, default) or off it (0); repeat for more points of the same object",
    )
    prompts.add_argument(
        "--box",
        type=box,
        action="append",
        default=[],
        metavar="X0,Y0,X1,Y1",
        help="a box around an object; repeat for more objects. Points belong to the box that they lie in",
    )
    prompts.add_argument(
        "--no-zoom-in",
        dest="zoom_in",
        action="store_false",
        help="answer from one look at the whole picture: small objects are not looked at again, larger",
    )
    model = top.add_argument_group("model")
    model.add_argument("--model", metavar="DIR", help="artifact folder (default: $TINYSAM_MODEL, then ./artifacts/*)")
    model.add_argument(
        "--backend",
        type=str.lower,
        choices=tuple(FILE_FORMATS),
        help="engine (default: the first that is installed and that the model has such files for)",
    )
    model.add_argument(
        "--precision",
        type=str.lower,
        choices=("int8", "fp16", "fp32", "mixed"),
        help="default: int8 if the model has it; fp16: half precision (tflite); mixed: INT8 encoder, fp32 decoder",
    )
    model.add_argument("--threads", type=positive, metavar="N", help="default: every core this process may use")
    model.add_argument(
        "--embeddings",
        metavar="DIR",
        help="keep the image embedding of each picture there: further prompts to a picture are answered without it",
    )
    _add_everything(top)
    _add_output(top)
    return top


def _add_everything(top: argparse.ArgumentParser) -> None:
    group = top.add_argument_group("segment everything (defaults belong to the model)")
    group.add_argument(
        "--mode",
        type=str.lower,
        choices=("hierarchical", "grid"),
        default="hierarchical",
        help="coarse grid first, then the least known points; or the full grid at once (default: %(default)s)",
    )
    group.add_argument("--points-per-side", type=positive, metavar="N", help="grid of N x N points (default: 32)")
    group.add_argument("--points-per-batch", type=positive, metavar="N", help="prompts per call of the decoder")
    group.add_argument("--pred-iou-thresh", type=fraction, metavar="X", help="least predicted IoU, 0 to 1")
    group.add_argument("--stability-score-thresh", type=fraction, metavar="X", help="least stability, 0 to 1")
    group.add_argument("--box-nms-thresh", type=fraction, metavar="X", help="box IoU of duplicates, 0 to 1")
    group.add_argument("--crop-n-layers", type=int, choices=range(5), metavar="N", help="also look at crops: 0 to 4")
    group.add_argument("--min-mask-region-area", type=positive, metavar="PX", help="remove smaller holes and islands")


def _add_output(top: argparse.ArgumentParser) -> None:
    group = top.add_argument_group("output")
    group.add_argument("--out", default="out", metavar="DIR", help="folder for results (default: %(default)s)")
    listed = "; ".join(f"{name}: {kind.meaning} (NAME{kind.suffix})" for name, kind in FORMATS.items())
    group.add_argument(
        "--format",
        type=formats,
        default=["overlay"],
        metavar="F,F",
        help=f"comma-separated (default: overlay). {listed}".replace("%", "%%"),
    )
    group.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out pictures whose results are in --out already: the same command goes on after an interruption",
    )
    group.add_argument("--raw", action="store_true", help="leave small islands and holes in masks")
    group.add_argument("--timing", action="store_true", help="print milliseconds for each stage")
    group.add_argument("--quiet", action="store_true", help="print errors and notes only")
    group.add_argument(
        "--max-pixels", type=positive, default=100_000_000, metavar="N", help="refuse larger pictures (default: 1e8)"
    )


def point(text: str) -> tuple[float, float, int]:
    """`x,y` or `x,y,label`."""
    values = _numbers(text)
    if len(values) == 2:
        values.append(1.0)
    if len(values) != 3 or values[2] not in (0, 1):
        raise argparse.ArgumentTypeError(f"{text!r}: expected X,Y or X,Y,LABEL with LABEL 1 (object) or 0 (not object)")
    return values[0], values[1], int(values[2])


def box(text: str) -> tuple[float, float, float, float]:
    """`x0,y0,x1,y1`."""
    values = _numbers(text)
    if len(values) != 4:
        raise argparse.ArgumentTypeError(f"{text!r}: expected X0,Y0,X1,Y1")
    x0, y0, x1, y1 = values
    if x1 <= x0 or y1 <= y0:
        raise argparse.ArgumentTypeError(f"{text!r}: X1 must exceed X0 and Y1 must exceed Y0, in pixels")
    return x0, y0, x1, y1


def formats(text: str) -> list[str]:
    """Names of output formats, in order, each once."""
    names = _parts(text.lower())
    for name in names:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r}: expected some of {', '.join(FORMATS)}")
    return list(dict.fromkeys(names))


def positive(text: str) -> int:
    """A whole number from 1."""
    try:
        value = int(float(text)) if "e" in text.lower() else int(text)
    except (ValueError, OverflowError):
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    values = _numbers(text)
    if len(values) != 1 or not 0 <= values[0] <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to 1")
    return values[0]


def _numbers(text: str) -> list[float]:
    try:
        values = [float(part) for part in _parts(text)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers separated by commas") from error
    if not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected finite numbers")
    return values


def _parts(text: str) -> list[str]:
    """Parts of a list with commas, semicolons or spaces between them, in brackets or not."""
    return _SEPARATOR.split(text.strip(" \t[](){}"))


def add_version(top: argparse.ArgumentParser) -> None:
    """Gives a command the option `--version`."""
    top.add_argument("--version", action=_Version, nargs=0, help="show the project's version, then stop")


def version_line(command: str) -> str:
    """The command and the project's version, as installed."""
    # Imported here: it costs as much as all the rest of `--help`.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{command} {version('tinysam-edge')}"
    except PackageNotFoundError:
        return f"{command} (not installed: run from its source)"


class _Version(argparse.Action):
    """Prints the version and ends the command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(version_line(parser.prog))
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
