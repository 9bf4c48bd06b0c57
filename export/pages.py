"""Generated sections of the pages of `docs/`: measured tables, and the tensors of model files.

A section stands between the lines `<!-- name -->` and `<!-- /name -->` of a page. `python -m tinysam.export.pages`
writes the tables of docs/artifacts.md from the runtime's contract; a test compares them.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tinysam.runtime.atomic import write_atomically
from tinysam.runtime.contract import Sizes, signatures
from tinysam.runtime.engines.formats import FORMATS, FileFormat
from tinysam.runtime.labels import LABELS
from tinysam.runtime.manifest import Signature, TensorSpec

PAGE = Path(__file__).resolve().parent.parent / "docs" / "artifacts.md"
SECTION = "signatures"
EXAMPLE = Sizes(448, 4)
"""The sizes of `nano`."""

MEANINGS = {
    "image": "RGB, resized, as the file's `input` says, then zeros right and below up to the square",
    "image_embeddings": "image embedding",
    "point_coords": "x and y in pixels of the model's input",
    "point_labels": "see below",
    "mask_input": "logits of an earlier low-res mask, for all prompts of the call",
    "has_mask_input": "1 where `mask_input` counts, 0 where it is ignored",
    "iou_threshold": "masks are drawn for prompts with a mask of higher predicted IoU only; -infinity draws all",
    "low_res_masks": "mask logits; above 0 is foreground",
    "iou_predictions": "predicted IoU of each mask",
    "image_cells": "the embedding as rows, with what stands for the lack of a mask prompt",
    "keys": "projection of the cells: keys of the tokens' attention to them in the first layer",
    "values": "likewise, values of the same",
    "queries": "likewise, queries of the cells' attention to the tokens",
    "cells": "the embedding after the two-way transformer",
    "mask_weights": "output of each mask token's hypernetwork; its product with the upscaled cells is the mask",
}


def replace_section(page: Path, name: str, text: str) -> None:
    """Writes a section of a page.

    Raises:
        FileNotFoundError: there is no such page.
        ValueError: the page has no such section.
    """
    try:
        changed = with_section(page.read_text(encoding="utf-8"), name, text)
    except ValueError as error:
        raise ValueError(f"{page}: {error}") from error
    write_atomically(page, changed)


def with_section(page: str, name: str, text: str) -> str:
    """The text of a page with another section; ValueError if it does not have that section once."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    between = re.compile(f"(?<={re.escape(begin)}\n).*?(?={re.escape(end)})", re.DOTALL)
    changed, found = between.subn(lambda _: f"\n{text.strip()}\n\n", page)
    if found != 1:
        raise ValueError(f"expected one section from {begin} to {end}, found {found}")
    return changed


def tables() -> str:
    """The generated part of the page."""
    parts = [f"Shapes are those of `nano`: image size {EXAMPLE.image_size}, grid {EXAMPLE.grid}, 4 masks.\n"]
    for form in FORMATS.values():
        parts.append(f"### {form.title}: `{form.suffix}` files\n")
        parts.append(_format_table(form))
    names = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in LABELS.items())
    parts.append(f"`point_labels`: {names}.\n")
    return "\n".join(parts)


def _format_table(form: FileFormat) -> str:
    packages = " or ".join(f"`{package.requirement}`" for package in form.packages)
    lines = [f"Layout {form.layout}; runs with {packages}.", "", "| signature | tensor | shape | meaning |"]
    lines.append("| --- | --- | --- | --- |")
    for part in ("encoder", "decoder"):
        for name, signature in signatures(part, form, EXAMPLE).items():
            lines += _rows(part, name, signature)
    return "\n".join(lines) + "\n"


def _rows(part: str, name: str, signature: Signature) -> Iterable[str]:
    label = f"{part} `{name}`" if name else part
    sides: tuple[tuple[str, Mapping[str, TensorSpec]], ...] = (("in", signature.inputs), ("out", signature.outputs))
    for side, tensors in sides:
        for tensor, spec in tensors.items():
            shape = ", ".join(map(str, spec.shape))
            yield f"| {label} | {side}: `{tensor}` | ({shape}) | {MEANINGS[tensor]} |"


def page(text: str) -> str:
    """The page of artifacts with its generated part replaced."""
    return with_section(text, SECTION, tables())


if __name__ == "__main__":
    replace_section(PAGE, SECTION, tables())
