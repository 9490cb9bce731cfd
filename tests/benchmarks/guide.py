"""Writes the results of a run into a guide, between marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["filled", "origin", "rounded"]


def filled(guide: Path, section: str, text: str) -> bool:
    """Put the text between the marks of a section, if the guide has them."""
    if not guide.exists():
        return False
    begin, end = f"<!-- {section} -->\n", f"<!-- end of {section} -->\n"
    before, found, rest = guide.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        return False
    guide.write_text(f"{before}{begin}\n{text}\n{end}{after}")
    return True


def origin(head: dict[str, Any]) -> str:
    """The sentence that names the command, the date and the machine."""
    versions = head["versions"]
    return (
        f"`{head['command']}` on {head['started'][:10]}: {head['machine']},"
        f" PostgreSQL {versions['PostgreSQL']}, Python {versions['Python']}."
    )


def rounded(value: Any) -> Any:
    """The value with numbers rounded to four digits, since runs differ by more."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {key: rounded(one) for key, one in value.items()}
        case list():
            return [rounded(one) for one in value]
        case _:
            return value
