"""The pages of a list, and the options that choose among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

    from observatory_storage.cli.console import Output

__all__ = ["page_options", "show_pages"]

Command = TypeVar("Command", bound=Callable[..., Any])
Row_co = TypeVar("Row_co", covariant=True)


class _Page(Protocol[Row_co]):
    @property
    def rows(self) -> Sequence[Row_co]: ...

    @property
    def next(self) -> str | None: ...


def page_options(command: Command) -> Command:
    """Add the options of a list."""
    for option in (
        click.option("--all", "everything", is_flag=True, help="Print every page."),
        click.option("--after", metavar="CURSOR", help="Print the page after this cursor."),
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
    fetch: Callable[[str | None], _Page[Any]],
    render: Callable[[Sequence[Any]], RenderableType],
    *,
    after: str | None,
    everything: bool,
) -> None:
    """Print one page, or every page from there on.

    When there are more pages, the cursor of the next one is printed to standard error. As JSON
    every row is a line.
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
            click.echo(f"more with --after {after}", err=True)
            return
