"""Tables of text that fit the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from observatory_storage.cli.formatting import clean

__all__ = ["WIDE", "Column", "table"]

# From this many columns on, a terminal has room for whole ids and times.
WIDE = 120


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: the title of the column.
        right: whether cells are aligned to the right.
        narrowest: the width to which it may be cut if there is too little room; None if it may not
            be cut.
        keep: the column with the lowest number is dropped first. An id has the highest number.
    """

    title: str
    right: bool = False
    narrowest: int | None = None
    keep: int = 1


def table(
    columns: Sequence[Column],
    rows: Iterable[Iterable[str | Text]],
    *,
    gap: int = 2,
    with_titles: bool = True,
) -> RenderableType:
    """A table without lines, or the word "none" where there are no rows.

    When there is too little room, columns that may be cut are cut. When that is not enough, columns
    are dropped: the least important first, and of equal ones the rightmost. The last column that
    remains is cut.

    Args:
        columns: the columns.
        rows: their cells; text is cleaned, and never taken for markup.
        gap: the space between columns.
        with_titles: begin with the line of titles.
    """
    cells = [[_cell(cell) for cell in row] for row in rows]
    if not cells:
        return Text("none", style="dim")
    return _Table(columns, cells, gap, with_titles)


@dataclass(frozen=True, slots=True)
class _Table:
    """Lines of cells. (rich's own table takes the missing room from all columns alike.)"""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Text]]
    gap: int
    with_titles: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = list(self.rows)
        if self.with_titles:
            lines.insert(0, [Text(column.title, style="bold") for column in self.columns])
        widths = self._fit(lines, options.max_width)
        for line in lines:
            shown = Text(no_wrap=True, overflow="crop")
            for index, width in widths.items():
                part = line[index].copy()
                part.truncate(width, overflow="ellipsis")
                part.align("right" if self.columns[index].right else "left", width)
                shown.append_text(part).append(" " * self.gap)
            shown.rstrip()
            yield shown

    def _fit(self, lines: Sequence[Sequence[Text]], room: int) -> dict[int, int]:
        """The widths of the columns that are shown, by their indexes."""
        widths = dict(
            enumerate(max(cell.cell_len for cell in cells) for cells in zip(*lines, strict=True))
        )
        while True:
            missing = sum(widths.values()) + self.gap * (len(widths) - 1) - room
            spare = {
                index: max(width - narrowest, 0)
                for index, width in widths.items()
                if (narrowest := self.columns[index].narrowest) is not None
            }
            if missing <= sum(spare.values()):
                break
            if len(widths) == 1:
                return {index: min(width, room) for index, width in widths.items()}
            del widths[min(widths, key=lambda index: (self.columns[index].keep, -index))]
        for _ in range(missing):
            # The widest is cut first, until it is no wider than the next.
            index = max((each for each in spare if spare[each]), key=lambda each: widths[each])
            widths[index] -= 1
            spare[index] -= 1
        return widths


def _cell(cell: str | Text) -> Text:
    if isinstance(cell, str):
        return Text(clean(cell))
    cell.plain = clean(cell.plain)
    return cell
