from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, list_pages, read_anchors, read_links

PAGES = list_pages()
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    dead = []
    for link in read_links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        is_dead = anchor and anchor not in read_anchors(target) if target.exists() else True
        dead += [link] * bool(is_dead)
    assert dead == []


def test_links_reach_every_page_from_the_contents() -> None:
    contents = ROOT / "docs" / "index.md"
    linked = {(contents.parent / link.partition("#")[0]).resolve() for link in read_links(contents)}
    assert set((ROOT / "docs").rglob("*.md")) - linked - {contents} == set()
