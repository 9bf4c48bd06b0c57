"""The command `tinysam-arm-cost`: instructions per inference on emulated Raspberry Pi processors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tinysam.device.arm.debian import DebianUnavailable
from tinysam.device.arm.emulator import build_emulator
from tinysam.device.arm.root import BOARDS, BOOKWORM, cache_folder
from tinysam.device.arm.wheels import WheelsUnavailable
from tinysam.device.cost.guard import LIMIT, compare
from tinysam.device.cost.measure import Cost, MeasureError, measure
from tinysam.device.cost.models import PARTS, Subject, subjects
from tinysam.device.cost.plugin import CompilerMissing, build_plugin
from tinysam.device.cost.report import Row, by_kind, operations_table, read_record, table, update_record, write_page
from tinysam.runtime.bench.macs import count_macs
from tinysam.runtime.cli import add_version
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.errors import TinySamError
from tinysam.runtime.locate import find_artifacts
from tinysam.runtime.manifest import PRECISIONS

FAILURES = (TinySamError, DebianUnavailable, WheelsUnavailable, CompilerMissing, MeasureError, OSError, ValueError)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write a record; errors are one line on stderr and exit status 1."""
    options = _parser().parse_args(arguments)
    try:
        # Read before anything is counted: --out may be the same file.
        record = read_record(options.check) if options.check else []
        if options.check and not record:
            raise ValueError(f"{options.check}: no counts there; expected a record such as docs/arm-cost.json")
        rows = _measure_all(options)
        if options.out and options.page:
            write_page(options.page, read_record(options.out))
        found = compare(record, rows) if record else []
    except FAILURES as error:
        print(f"tinysam-arm-cost: {error}", file=sys.stderr)
        return 1
    print(f"\nMillions of instructions per inference, one thread\n\n{table(rows)}")
    for row in rows:
        if row.operations:
            print(f"\n{operations_table(row)}")
    for one in found:
        print(f"tinysam-arm-cost: {one}", file=sys.stderr)
    return 1 if found else 0


def _measure_all(options: argparse.Namespace) -> list[Row]:
    cache = cache_folder()
    plugin = build_plugin(cache)
    folders = options.model or [find_artifacts()]
    chosen = [
        subject
        for folder in folders
        for subject in subjects(folder, tuple(options.part))
        if subject.file.engine in options.backend and subject.file.precision in options.precision
    ]
    rows = []
    for cpu in options.cpu:
        emulator = build_emulator(BOOKWORM, BOARDS[cpu], cache)
        for subject in chosen:
            print(f"{subject.model} {subject.part}, {subject.path.name} on {cpu} ...", file=sys.stderr, flush=True)
            cost = measure(
                emulator,
                plugin,
                subject.path,
                lengths=subject.lengths,
                values=subject.values,
                signature=subject.signature,
                ops=options.ops,
            )
            rows.append(_row(subject, cpu, cost))
            if options.out:
                update_record(options.out, rows[-1:])
    return rows


def _row(subject: Subject, cpu: str, cost: Cost) -> Row:
    return Row(
        model=subject.model,
        part=subject.part,
        engine=subject.file.engine,
        cpu=cpu,
        precision=subject.file.precision,
        version=cost.engine,
        sha256=subject.file.sha256,
        counts=cost.counts,
        macs=count_macs(subject.path, subject.signature, subject.lengths, subject.values),
        operations=by_kind(cost.operations),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tinysam-arm-cost",
        description="Count the instructions of one inference on the processor of a Raspberry Pi 4 or 5 (a72, a76).",
    )
    add_version(parser)
    parser.add_argument("--model", type=Path, action="append", metavar="DIR", help="artifact folder; may be repeated")
    parser.add_argument("--cpu", nargs="+", choices=BOARDS, default=list(BOARDS))
    parser.add_argument(
        "--part",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        help="attend: without drawing masks; prepare: once before",
    )
    parser.add_argument("--backend", nargs="+", choices=tuple(FORMATS), default=list(FORMATS))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--ops", action="store_true", help="attribute the counts to operations")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON record to update, such as docs/arm-cost.json")
    parser.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help=f"JSON record to compare with: exit status 1 if a stage grew by more than {LIMIT:.0%}% or is not in it",
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="Markdown page to put the record's tables into")
    return parser


if __name__ == "__main__":
    sys.exit(main())
