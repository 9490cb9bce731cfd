"""Tables, shown as soon as they are known, and kept for the documentation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

__all__ = ["Output", "Shown"]


class Shown(NamedTuple):
    """A table of text: the first columns name or tell, the others are numbers."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1

    def as_rich(self) -> Table:
        table = Table(title=self.title, title_justify="left")
        for at, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if at >= self.words else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def as_markdown(self) -> str:
        rule = ["---"] * self.words + ["--:"] * (len(self.headings) - self.words)
        lines = (" | ".join(cells) for cells in (self.headings, rule, *self.rows))
        return f"**{self.title}**\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"


class Output:
    """Where the sections of a run tell what they have found.

    Attributes:
        tables: by section, what it has shown.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._section = ""
        self.tables: dict[str, list[Shown]] = defaultdict(list)

    def begin(self, section: str) -> None:
        """From now on it is this section that speaks."""
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
        """Show a table, of which so many columns hold words and the others numbers."""
        shown = Shown(title, headings, rows, words)
        self.tables[self._section].append(shown)
        self._console.print(shown.as_rich())
