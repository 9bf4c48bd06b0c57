"""Generated sections of the pages of `docs/`."""

from pathlib import Path

import pytest

from tinysam.export import pages

TEXT = "# Title\n\n<!-- counts -->\n\nold\n\n<!-- /counts -->\n\nafter\n"


def test_the_page_lists_the_tensors_of_the_contract() -> None:
    text = pages.PAGE.read_text(encoding="utf-8")
    assert pages.page(text) == text, "run `python -m tinysam.export.pages`"
    assert all(name in pages.tables() for name in ("iou_threshold", "attend_1x2", "upscale_1", "decode_1x32"))


def test_a_section_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(TEXT)
    pages.replace_section(page, "counts", r"\1 | new")
    assert page.read_text() == TEXT.replace("old", r"\1 | new")


@pytest.mark.parametrize("text", ["", "<!-- counts -->\n", TEXT + TEXT, TEXT.replace("/counts", "/other")])
def test_a_page_without_one_such_section_stays_as_it_is(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page\.md: expected one section from <!-- counts --> to <!-- /counts -->"):
        pages.replace_section(page, "counts", "new")
    assert page.read_text() == text
