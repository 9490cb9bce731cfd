"""Prints rows as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from observatory_storage.cli.console import Output, new_console
from observatory_storage.cli.formatting import clean
from observatory_storage.config import StreamSignal
from observatory_storage.errors import StorageError
from observatory_storage.pool import StoragePool

__all__ = ["Draw", "follow"]

# Draws rows: the rows, the width of the terminal, and whether titles are wanted.
Draw = Callable[[Sequence[Any], int, bool], RenderableType]


def follow(
    pool: StoragePool, signal: StreamSignal, filters: Any, output: Output, draw: Draw
) -> None:
    """Print the rows that match as they are stored, until the time range of the filters ends."""
    outage = _Outage()
    with_titles = True
    for page in pool.tail(signal, filters, payload=output.json, on_error=outage.begins):
        outage.ends()
        if output.json:
            output.write_all(page.rows)
        elif page.rows:
            output.show(draw(page.rows, output.console.width, with_titles))
            with_titles = False


class _Outage:
    """Says on standard error that the database does not answer, and that it does again."""

    def __init__(self) -> None:
        self._lasts = False

    def begins(self, error: StorageError) -> None:
        if not self._lasts:
            self._lasts = True
            _say(f"waiting for the database: {str(error).splitlines()[0]}", "yellow")

    def ends(self) -> None:
        if self._lasts:
            self._lasts = False
            _say("the database answers again", "green")


def _say(message: str, style: str) -> None:
    new_console(stderr=True).print(Text(clean(message), style=style), soft_wrap=True)
