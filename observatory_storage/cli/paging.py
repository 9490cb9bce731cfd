"""Lists, page by page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import click
from rich.console import RenderableType
from rich.text import Text

from observatory_storage.cli.output import Output, new_console

__all__ = ["page_options", "show_pages"]

Command = TypeVar("Command", bound=Callable[..., Any])
Row_co = TypeVar("Row_co", covariant=True)


class Page(Protocol[Row_co]):
    """What a repository's list returns."""

    @property
    def rows(self) -> Sequence[Row_co]:
        """The rows."""

    @property
    def next(self) -> str | None:
        """The cursor of the next page."""


def page_options(command: Command) -> Command:
    """The options of a list."""
    for option in (
        click.option("--all", "everything", is_flag=True, help="Every page, one after another."),
        click.option("--after", metavar="CURSOR", help="The page after that one; as it was told."),
        click.option(
            "--limit",
            default=50,
            show_default=True,
            type=click.IntRange(1, 2**31 - 1),
            help="Rows on a page.",
        ),
    ):
        command = option(command)
    return command


def show_pages(
    output: Output,
    fetch: Callable[[str | None], Page[Any]],
    render: Callable[[Sequence[Any]], RenderableType],
    *,
    after: str | None,
    everything: bool,
) -> None:
    """Print a page, or all from there on; where there is more, say on standard error how to go on.

    As JSON every row is a line.
    """
    while True:
        page = fetch(after)
        if output.json:
            output.write_all(page.rows)
        elif page.rows or not everything:
            output.show(render(page.rows))
        after = page.next
        if after is None:
            return
        if not everything:
            hint = Text(f"more with --after {after}", style="dim")
            new_console(stderr=True).print(hint, soft_wrap=True)
            return
