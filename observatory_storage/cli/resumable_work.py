"""Work on stored spans that goes on from transaction to transaction, and says where to continue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rich.markup import escape
from rich.text import Text

from observatory_storage.cli.common_options import State
from observatory_storage.cli.console import new_console

if TYPE_CHECKING:
    from observatory_storage.pool import StoragePool

__all__ = ["show_resumable"]


class Reached(Protocol):
    """What was done so far, and where the next call continues."""

    @property
    def spans(self) -> int: ...
    @property
    def changed_spans(self) -> int: ...
    @property
    def next_start(self) -> datetime | None: ...
    def to_dict(self, *, json: bool = False) -> dict[str, Any]: ...


R = TypeVar("R", bound=Reached)


def show_resumable(
    state: State, work: Callable[[StoragePool, Callable[[Reached], None]], R]
) -> None:
    """Do the work, show how far it is, and tell where to continue if it did not end.

    Args:
        state: the options of the command.
        work: takes the pool and a function that it calls after each transaction.
    """
    output, errors = state.output(), new_console(stderr=True)
    reached: Reached | None = None
    with state.pool() as pool, errors.status("reading") as status:

        def note(so_far: Reached) -> None:
            nonlocal reached
            reached = so_far
            status.update(escape(f"{_counts(so_far)}, at {so_far.next_start}"))

        try:
            done = work(pool, note)
        except BaseException:
            if reached is not None and reached.next_start is not None:
                errors.print(Text(f"{_counts(reached)}; {_continue(reached.next_start)}"))
            raise
    if output.json:
        output.write(done.to_dict())
        return
    output.show(Text(_counts(done)))
    if done.next_start is not None:
        errors.print(Text(_continue(done.next_start)))


def _counts(reached: Reached) -> str:
    return f"{reached.spans:,} spans read, {reached.changed_spans:,} changed"


def _continue(start: datetime) -> str:
    return f"continue with --since {start.isoformat()}"
