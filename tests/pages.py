"""The pages for people: where they are, their headings, links and blocks of code."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    + [page for page in DOCS.rglob("*.md") if "_build" not in page.parts]
)

_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,}).*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)[^`](?:.*?[^`])?\1(?!`)", re.DOTALL)
_INLINE_LINK = re.compile(r"\]\(\s*<?([^)\s>]*)>?[^)]*\)")
_DEFINED_LINK = re.compile(r"^\[[^\]]+\]:[ \t]+(\S+)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of code of one language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )


def links(page: Path) -> list[str]:
    """The targets of all links, without those in code."""
    text = _CODE.sub("code", _without_blocks(page))
    return _INLINE_LINK.findall(text) + _DEFINED_LINK.findall(text)


@lru_cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of all headings, as GitHub and MyST make them."""
    counted: Counter[str] = Counter()
    found = set()
    for heading in _HEADING.findall(_without_blocks(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{slug}-{counted[slug]}" if counted[slug] else slug)
        counted[slug] += 1
    return frozenset(found)


@lru_cache
def _without_blocks(page: Path) -> str:
    return _FENCE.sub("", page.read_text("utf-8"))
