"""Prints tables as soon as they are measured, and keeps them for the documentation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

__all__ = ["Output", "Shown"]


class Shown(NamedTuple):
    """A text table whose first columns are text and whose other columns are numbers."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1

    def as_rich(self) -> Table:
        table = Table(title=self.title, title_justify="left")
        for index, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if index >= self.words else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def as_markdown(self) -> str:
        rule = ["---"] * self.words + ["--:"] * (len(self.headings) - self.words)
        lines = (" | ".join(cells) for cells in (self.headings, rule, *self.rows))
        return f"**{self.title}**\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"


class Output:
    """Prints the tables of a run and keeps them.

    Attributes:
        tables: the printed tables by section.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._section = ""
        self.tables: dict[str, list[Shown]] = defaultdict(list)

    def begin(self, section: str) -> None:
        """Start a section. The following tables belong to it."""
        self._section = section

    def say(self, line: str) -> None:
        self._console.print(line)

    def table(
        self,
        title: str,
        headings: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        words: int = 1,
    ) -> None:
        """Print a table whose first `words` columns are text and whose others are numbers."""
        shown = Shown(title, headings, rows, words)
        self.tables[self._section].append(shown)
        self._console.print(shown.as_rich())
