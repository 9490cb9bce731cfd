"""Results on standard output: tables for people, JSON for programs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from rich.console import Console, RenderableType

__all__ = ["Output", "ReaderLeft", "new_console"]

# A pipe or a file has no width, so no line is cut there, unless COLUMNS is set.
_PIPE_COLUMNS = 1_000_000


class ReaderLeft(Exception):
    """The program that reads the output, such as ``head``, has closed its end of the pipe."""


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise ReaderLeft


def new_console(*, stderr: bool = False) -> Console:
    """A console on the stream as it is now."""
    console = _Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = shutil.get_terminal_size((_PIPE_COLUMNS, 24)).columns
    return console


class Output:
    """Standard output, as text or as JSON.

    Raises:
        ReaderLeft: nobody reads any more; every method may raise it.
    """

    def __init__(self, console: Console, *, json: bool) -> None:
        self.console = console
        self.json = json

    def show(self, renderable: RenderableType) -> None:
        """Print for people."""
        self.console.print(renderable)

    def write(self, value: Any) -> None:
        """Print a value as one line of JSON: a document of its own."""
        from observatory_storage.cli.json_values import json_line

        self.write_bytes(json_line(value))

    def write_all(self, values: Iterable[Any]) -> None:
        """Print JSON lines."""
        for value in values:
            self.write(value)

    def write_bytes(self, line: bytes) -> None:
        """Print a line that is encoded already, with its end."""
        try:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise ReaderLeft from None
