"""The product's pages as text: links, headings, and fenced blocks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["ROOT", "Block", "list_pages", "read_anchors", "read_blocks", "read_links"]

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)[ ]?(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_LINK = re.compile(r"!?\[[^]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block: its language, what stands after it, and the text."""

    language: str
    label: str
    text: str


def list_pages() -> list[Path]:
    """Every Markdown page of the product."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*top, *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("examples/**/*.md"))]


def read_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(*match) for match in _FENCE.findall(page.read_text(encoding="utf-8"))]


def read_links(page: Path) -> list[str]:
    """The targets of a page's links that are files of ours or places in them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [target for target in _LINK.findall(text) if "://" not in target]


def read_anchors(page: Path) -> set[str]:
    """What can stand after `#` in a link to this page."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(text))
    return {heading.strip().replace(" ", "-") for heading in kept}
