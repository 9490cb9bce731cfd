"""Work on stored spans that goes on from transaction to transaction, and says where to continue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from observatory_storage.cli.common_options import State
from observatory_storage.cli.console import new_console
from observatory_storage.wording import counted

if TYPE_CHECKING:
    from observatory_storage.pool import StoragePool

__all__ = ["show_continuation", "show_resumable"]


class Reached(Protocol):
    """What was done so far, and where the next call continues."""

    @property
    def next_start(self) -> datetime | None: ...
    def to_dict(self, *, json: bool = False) -> dict[str, Any]: ...


R = TypeVar("R", bound=Reached)


def _spans(reached: Any) -> str:
    return f"{counted(reached.spans, 'span')} read, {reached.changed_spans:,} changed"


def show_resumable(
    state: State,
    work: Callable[[StoragePool, Callable[[R], None]], R],
    counts: Callable[[R], str] = _spans,
) -> R:
    """Do the work, show how far it is, and tell where to continue if it did not end.

    Args:
        state: the options of the command.
        work: takes the pool and a function that it calls after each transaction.
        counts: what was done so far, for people.
    """
    output, errors = state.output(), new_console(stderr=True)
    reached: R | None = None
    with state.pool() as pool, errors.status("reading") as status:

        def note(so_far: R) -> None:
            nonlocal reached
            reached = so_far
            status.update(escape(f"{counts(so_far)}, at {so_far.next_start}"))

        try:
            done = work(pool, note)
        except BaseException:
            if reached is not None and reached.next_start is not None:
                errors.print(Text(f"{counts(reached)}; {_continue(reached.next_start)}"))
            raise
    if output.json:
        output.write(done.to_dict())
    else:
        output.show(Text(counts(done)))
        show_continuation(errors, done.next_start)
    return done


def show_continuation(errors: Console, start: datetime | None) -> None:
    """Tell where the next call continues, if there is one to come."""
    if start is not None:
        errors.print(Text(_continue(start)))


def _continue(start: datetime) -> str:
    return f"continue with --since {start.isoformat()}"
