"""Counts the multiply-accumulates of one inference from the model file itself.

Only matrix products and convolutions count, as is usual: element-wise operations are the overhead that a rate in
GMAC/s shows. The count is that of the graph as it was written, whatever the engine makes of it: the same in both
engines, and for fp32 and INT8 but for the fourth channel that an INT8 encoder reads, and the bias that is one more row
of its first product in ONNX files for ARM.

How the operations of a file are found is written beside the engine of its format: `runtime/engines/*_bench.py`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tinysam.runtime.contract import FREE, decode_name
from tinysam.runtime.engines.formats import FORMATS
from tinysam.runtime.manifest import ModelFile

CLICK = (1, 2)
"""One prompt of two points: the one that was clicked, and SAM's padding point."""
NOTHING: Mapping[str, Any] = MappingProxyType({})


def click_macs(path: Path, file: ModelFile) -> int:
    """Multiply-accumulates of an encoder, or of a decoder that is asked for the masks of one click.

    Raises:
        ImportError: the file's engine is not installed.
    """
    if file.part == "encoder":
        return count_macs(path, next(iter(file.signatures)) or None)
    if FREE not in file.signatures:
        return count_macs(path, decode_name(*CLICK))
    axes = file.signatures[FREE].inputs["point_coords"].shape
    lengths = {axis: length for axis, length in zip(axes, CLICK, strict=False) if isinstance(axis, str)}
    return count_macs(path, lengths=lengths, values={"iou_threshold": -math.inf})


def count_macs(
    path: Path,
    signature: str | None = None,
    lengths: Mapping[str, int] = NOTHING,
    values: Mapping[str, float] = NOTHING,
) -> int:
    """Multiply-accumulates of one run of a model file.

    Args:
        path: model file.
        signature: of a file that names them; None for its only one.
        lengths: of free axes by their name; others are 1.
        values: of inputs that hold one value throughout, where a file must run to be counted; others hold ones.

    Raises:
        ImportError: the file's engine is not installed.
        ValueError: no such signature, or a format that cannot be counted.
    """
    form = next((form for form in FORMATS.values() if form.suffix == path.suffix), None)
    tools = form.bench_tools() if form else None
    if tools is None:
        raise ValueError(f"{path}: operations of {path.suffix or 'such'} files cannot be counted")
    macs: int = tools.count_macs(path, signature, lengths, values)
    return macs
