"""The documentation has no broken links, and docs/README.md links every page once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
BY_FOLDER = {"adr"}  # docs/README.md links the folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_broken(page):
    assert [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []


def test_index_links_every_page_once():
    linked = [link for link in LINK.findall((DOCS / "README.md").read_text()) if link.endswith(".md")]
    pages = [page for page in DOCS.rglob("*.md") if page.parent != DOCS and page.parent.name not in BY_FOLDER]
    assert sorted(linked) == sorted(str(page.relative_to(DOCS)) for page in pages)
