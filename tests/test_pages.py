"""Links lead somewhere, and every page is listed once in the table of contents."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.pages import DOCS, PAGES, ROOT, anchors, links

_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}")
_MENTION = re.compile(r"\bdocs/[\w/-]+\.md(?:#[\w-]+)?")
named = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def fault_of(page: Path, link: str) -> str | None:
    """What is wrong with a link, if anything is."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        if parts.scheme != "https" or not _HOST.fullmatch(parts.hostname or ""):
            return "is no https:// address of a host"
        return None
    target = (page.parent / parts.path).resolve() if parts.path else page
    if not target.exists():
        return "leads to no file"
    if parts.fragment and parts.fragment not in anchors(target):
        return "leads to no heading"
    return None


@named
def test_links_lead_to_files_and_headings(page: Path) -> None:
    faults = {link: fault for link in links(page) if (fault := fault_of(page, link))}
    assert faults == {}


def test_pages_that_code_mentions_exist() -> None:
    sources = [
        path
        for folder in ("observatory_storage", "observatory_embedded", "alembic", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    missing = {
        f"{path.relative_to(ROOT)}: {mention}"
        for path in sources
        for mention in _MENTION.findall(path.read_text("utf-8"))
        if fault_of(ROOT / "README.md", mention)
    }
    assert missing == set()


def test_table_of_contents_lists_every_page_once() -> None:
    trees = re.findall(
        r"^```\{toctree\}\n(.*?)^```",
        (DOCS / "index.md").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    listed = Counter(
        line for tree in trees for line in tree.split("\n") if line and not line.startswith(":")
    )
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert set(listed.values()) == {1}
    assert pages | {"reference/index"} <= set(listed)


def test_faults_are_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `code` heading\n\n[a](other.md) [b](#a-code-heading) [c](page.md#b) [d](http://x.org)"
        " `[e](none.md)`\n\n```sh\n[f](none.md)\n# g\n```\n[h](https://example.org/)\n\n"
        "[i]: none.md\n"
    )
    assert {link: fault_of(page, link) for link in links(page)} == {
        "other.md": "leads to no file",
        "#a-code-heading": None,
        "page.md#b": "leads to no heading",
        "http://x.org": "is no https:// address of a host",
        "https://example.org/": None,
        "none.md": "leads to no file",
    }


def test_the_outputs_on_the_page_of_the_command_line_name_the_newest_revision() -> None:
    newest = max(path.name[:4] for path in (ROOT / "alembic" / "versions").glob("[0-9]*.py"))
    page = (DOCS / "cli.md").read_text("utf-8")
    told = re.findall(r"the newest is (\d{4})|no revision -> (\d{4})", page)
    assert told == [(newest, ""), ("", newest)]
    assert f"{int(newest)} pending" in page
