"""Measured tables inside the pages of `docs/`."""

from __future__ import annotations

import re
from pathlib import Path

from tinysam.runtime.atomic import write_atomically


def replace_section(page: Path, name: str, text: str) -> None:
    """Put `text` between the lines `<!-- name -->` and `<!-- /name -->` of a Markdown page.

    Raises:
        FileNotFoundError: there is no such page.
        ValueError: the page has no such lines.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    between = re.compile(f"(?<={re.escape(begin)}\n).*?(?={re.escape(end)})", re.DOTALL)
    new, found = between.subn(lambda _: f"\n{text.strip()}\n\n", page.read_text())
    if found != 1:
        raise ValueError(f"{page}: expected one section from {begin} to {end}, found {found}")
    write_atomically(page, new)
