"""Results: tables for people, JSON for programs. Everything else goes to standard error."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import PurePath
from typing import Any, NoReturn
from uuid import UUID

import orjson
import sqlalchemy as sa
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from observatory_storage.cli.text import clean
from observatory_storage.models import Base

__all__ = ["Output", "new_console", "table"]

_INT64 = 2**63
# Where nobody looks at a width: a file or a pipe. COLUMNS says otherwise.
_PIPE_COLUMNS = 120
_NARROWEST = 6  # a column that gives way still shows something


def new_console(*, stderr: bool = False) -> Console:
    """A console on the stream as it is now."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = shutil.get_terminal_size((_PIPE_COLUMNS, 24)).columns
    return console


class Output:
    """Standard output, as text or as JSON."""

    def __init__(self, console: Console, *, json: bool) -> None:
        self.console = console
        self.json = json

    def show(self, renderable: RenderableType) -> None:
        """Print for people."""
        self.console.print(renderable)

    def write(self, value: Any) -> None:
        """Print a value as one line of JSON: a document of its own."""
        line = orjson.dumps(plain(value), option=orjson.OPT_APPEND_NEWLINE)
        try:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            _reader_left()

    def write_all(self, values: Iterable[Any]) -> None:
        """Print JSON lines."""
        for value in values:
            self.write(value)


def plain(value: Any) -> Any:
    """The value in the types of JSON, exactly.

    A row is its columns, by their names; one that was not loaded is left out. Decimals and long
    integers are numbers with all their digits, times are ISO 8601 in UTC.
    """
    if value is None or isinstance(value, (str, bool, float)):
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else orjson.Fragment(str(value))
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, (UUID, PurePath)):
        return str(value)
    if isinstance(value, Base):
        state = sa.inspect(value)
        loaded = (column.key for column in state.mapper.column_attrs)
        return {key: plain(getattr(value, key)) for key in loaded if key not in state.unloaded}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return [plain(each) for each in value]


def table(
    columns: Sequence[str], rows: Iterable[Iterable[str | Text]], *, gap: int = 2
) -> RenderableType:
    """A table without lines; the word "none" where there are no rows.

    Args:
        columns: the titles. One that begins with ">" is aligned to the right, one that ends with
            "*" gives way when there is too little room; the others are shown in full.
        rows: cells; text is cleaned, and never taken for markup.
        gap: the space between columns.
    """
    kept = [[_cell(cell) for cell in row] for row in rows]
    return _Table(columns, kept, gap) if kept else Text("none", style="dim")


@dataclass(frozen=True, slots=True)
class _Table:
    """Lines of cells. (rich's own table shares what is missing out among all columns.)"""

    columns: Sequence[str]
    rows: Sequence[Sequence[Text]]
    gap: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        titles = [Text(column.strip(">*"), style="bold") for column in self.columns]
        lines = [titles, *self.rows]
        widths = self._widths(lines, options.max_width)
        for line in lines:
            shown = Text(no_wrap=True, overflow="crop")
            for column, cell, width in zip(self.columns, line, widths, strict=True):
                part = cell.copy()
                part.truncate(width, overflow="ellipsis")
                part.align("right" if column.startswith(">") else "left", width)
                shown.append_text(part).append(" " * self.gap)
            shown.rstrip()
            yield shown

    def _widths(self, lines: Sequence[Sequence[Text]], room: int) -> list[int]:
        widths = [max(cell.cell_len for cell in cells) for cells in zip(*lines, strict=True)]
        yielding = [at for at, column in enumerate(self.columns) if column.endswith("*")]
        missing = sum(widths) + self.gap * (len(widths) - 1) - room
        while missing > 0 and yielding:
            # The widest gives first, until it is no wider than the next.
            widest = max(yielding, key=lambda at: widths[at])
            if widths[widest] <= _NARROWEST:
                break
            widths[widest] -= 1
            missing -= 1
        return widths


def _cell(cell: str | Text) -> Text:
    if isinstance(cell, str):
        return Text(clean(cell))
    cell.plain = clean(cell.plain)
    return cell


def _reader_left() -> NoReturn:
    # As rich does: what is still buffered has nowhere to go, and is no error worth words.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    raise SystemExit(1)
