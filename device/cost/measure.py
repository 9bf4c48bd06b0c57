"""Counts the instructions of one inference of a model file on an emulated board."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tinysam.device.arm.emulator import Emulator, link_runtime
from tinysam.device.cost import guest
from tinysam.device.cost.plugin import Counts, read_regions

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
MARGIN_READINGS = 16
"""At most this many clock readings of a traced run belong to the run as a whole."""


class MeasureError(RuntimeError):
    """The emulated program failed; the message holds its last line."""


@dataclass(frozen=True)
class Operation:
    """What one operation of the graph, as the engine ran it, cost."""

    name: str
    kind: str
    counts: Counts


@dataclass(frozen=True)
class Cost:
    """Instructions of one inference with one thread."""

    engine: str
    """Name and version."""
    counts: Counts
    operations: tuple[Operation, ...] = ()


def measure(
    emulator: Emulator,
    plugin: Path,
    model: Path,
    *,
    lengths: Mapping[str, int] = MappingProxyType({}),
    values: Mapping[str, float] = MappingProxyType({}),
    signature: str | None = None,
    ops: bool = False,
    timeout_s: float | None = None,
) -> Cost:
    """Run a model once on the emulated board and count.

    Args:
        emulator: board and release.
        plugin: from `build_plugin`.
        model: `.onnx` or `.tflite` file.
        lengths: free axes of an ONNX file by name; others are 1.
        values: inputs that hold one value throughout; others get synthetic ones.
        signature: of a TFLite file with several.
        ops: also attribute the count to operations.
        timeout_s: limit for the emulated program.

    Raises:
        MeasureError: the model did not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, packages = Path(folder) / "counts", Path(folder) / "packages"
        link_runtime(packages)
        arguments = [guest.__file__, str(model.resolve()), "--shapes", json.dumps(dict(lengths))]
        arguments += ["--values", json.dumps(dict(values))]
        arguments += ["--signature", signature] if signature else []
        arguments += ["--ops"] if ops else []
        done = emulator.python(
            arguments,
            plugin=plugin,
            plugin_options={"out": str(out)},
            timeout_s=timeout_s,
            environment={**ONE_THREAD, "PYTHONPATH": f"{emulator.site}:{packages}"},
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise MeasureError(f"{model.name} on {emulator.board.cpu}: exit {done.returncode}: {lines[-1]}")
        report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        plain, traced = read_regions(out.read_text())
    operations = attribute(report["events"], traced[-1]) if ops else ()
    return Cost(report["engine"], plain[0], operations)


def attribute(events: list[dict[str, Any]], snapshots: list[Counts]) -> tuple[Operation, ...]:
    """Give each operation the instructions between the clock readings at its beginning and at its end.

    The profiler reads the clock a few times around the whole run too. Which reading is the first operation's is
    found by trying: at the right offset the instructions are distributed over the operations as the time is that the
    profiler saw (Bhattacharyya, 1943). Time and instructions are not proportional in an emulator, but an offset that
    is off by one puts the instructions of a convolution beside the time of a reshape.

    Args:
        events: operations in order, with `name`, `type`, the time `elapsed` in any unit, and the numbers of the
            readings at their `begin` and `end`.
        snapshots: instructions so far at every reading.

    Raises:
        MeasureError: the number of readings does not fit the operations.
    """
    needed = 1 + max((event["end"] for event in events), default=-1)
    spare = len(snapshots) - needed
    if not events or not 0 <= spare <= MARGIN_READINGS:
        raise MeasureError(f"{len(snapshots)} clock readings where {len(events)} operations need {needed}")
    trials = [
        [snapshots[offset + event["end"]] - snapshots[offset + event["begin"]] for event in events]
        for offset in range(spare + 1)
    ]
    best = max(trials, key=lambda spans: _likeness(spans, [event["elapsed"] for event in events]))
    return tuple(Operation(event["name"], event["type"], span) for event, span in zip(events, best, strict=True))


def _likeness(spans: list[Counts], elapsed: list[float]) -> float:
    """Bhattacharyya coefficient of both, but for a factor that is the same for all offsets up to the run's ends."""
    return sum(math.sqrt(span.total * time) for span, time in zip(spans, elapsed, strict=True))
