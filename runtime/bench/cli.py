"""The command `tinysam-bench`."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinysam.runtime.cli import add_version, positive
from tinysam.runtime.errors import EXIT_ARTIFACTS, EXIT_ENGINE, EXIT_FAILED, EXIT_OUTPUT, EXIT_USAGE

_EPILOG = """\
Every combination of engine, precision and threads runs in a process of its own, so that its peak memory is its own.
Times are milliseconds of the wall clock: median and 95th percentile. Run it when nothing else runs.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code (those of tinysam-run)."""
    options = parser().parse_args(arguments)
    from tinysam.runtime.errors import EngineMissingError, OutputError, TinySamError

    try:
        return _compare(options.compare) if options.compare else _bench(options)
    except FileNotFoundError as error:
        return _fail(error, EXIT_ARTIFACTS)
    except EngineMissingError as error:
        return _fail(error, EXIT_ENGINE)
    except OutputError as error:
        return _fail(error, EXIT_OUTPUT)
    except (TinySamError, ValueError) as error:
        return _fail(error, EXIT_USAGE)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="tinysam-bench",
        description="Measure speed and memory of the runtime on this machine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(top)
    top.add_argument("image", nargs="?", help="picture (default: a synthetic one of 1920 x 1280 pixels)")
    top.add_argument("--model", metavar="DIR", help="artifact folder (default: as tinysam-run)")
    top.add_argument("--backend", type=_names, metavar="A,B", help="default: all that are installed and exported")
    top.add_argument("--precision", type=_names, metavar="A,B", help="default: all that are exported")
    top.add_argument("--threads", type=_counts, metavar="N,N", help="default: every core this process may use")
    top.add_argument("--repeats", type=positive, default=10, metavar="N", help="of each stage (default: %(default)s)")
    top.add_argument("--everything", action="store_true", help="also segment everything, once")
    top.add_argument("--json", metavar="FILE", help="also write the figures there")
    top.add_argument("--compare", nargs=2, metavar=("A.json", "B.json"), help="compare two earlier reports, then stop")
    return top


def _bench(options: argparse.Namespace) -> int:
    from tinysam.runtime.bench.measure import Case, find_cases
    from tinysam.runtime.bench.report import machine, table

    cases = find_cases(options.model, options.backend, options.precision, options.threads)
    report: dict[str, Any] = {"schema": 1, "machine": machine(), "image": options.image or "synthetic", "cases": []}
    print("  ".join(f"{name}: {value}" for name, value in report["machine"].items()), flush=True)
    failures = 0
    for case in cases:
        figures = _measure_in_child(case, options)
        if figures is None:
            failures += 1
            continue
        report["cases"].append(asdict(case) | figures)
        print(table(Case(**asdict(case)), figures), flush=True)
    if options.json:
        from tinysam.runtime.atomic import open_atomically

        with open_atomically(Path(options.json)) as stream:
            stream.write(json.dumps(report, indent=2).encode() + b"\n")
        print(f"wrote {options.json}")
    return EXIT_FAILED if failures else 0


def _measure_in_child(case: Any, options: argparse.Namespace) -> dict[str, Any] | None:
    """Figures of one combination; None if its process failed, which has said why."""
    job = asdict(case) | {"image": options.image, "repeats": options.repeats, "everything": options.everything}
    done = subprocess.run(
        [sys.executable, "-m", "tinysam.runtime.bench.worker"],
        input=json.dumps(job).encode(),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        return None
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _compare(paths: Sequence[str]) -> int:
    from tinysam.runtime.bench.report import comparison, read_report

    before, after = (read_report(Path(path)) for path in paths)
    print(comparison(before, after))
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _counts(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


def _fail(message: object, code: int) -> int:
    print(f"tinysam-bench: error: {' '.join(str(message).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
