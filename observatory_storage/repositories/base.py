"""What the repositories share: one door to the session, and entities that leave it whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import Select, inspect
from sqlalchemy.orm import InstanceState, LoaderCallableStatus, PassiveFlag, Session
from sqlalchemy.sql import Executable

from observatory_storage.errors import NotFound, StorageError, translated
from observatory_storage.repositories import arguments
from observatory_storage.repositories.paging import Keyset, Page, Turn
from observatory_storage.repositories.totals import TOTALS, Total, count_exactly, estimate

__all__ = ["Repository", "explain_what_is_left_out"]

T = TypeVar("T")
U = TypeVar("U")
Parameters = Mapping[str, Any] | None

_ROWS_AT_A_TIME = 1000


class _NotLoaded:
    """What a detached entity answers for a column that its list has left out.

    SQLAlchemy's own answer speaks of a session, and no session would help.
    """

    def __init__(self, column: str) -> None:
        self._column = column

    def __call__(self, state: InstanceState[Any], passive: PassiveFlag) -> Any:
        if not passive & PassiveFlag.SQL_OK:
            return LoaderCallableStatus.PASSIVE_NO_RESULT
        name = f"{state.class_.__name__}.{self._column}"
        raise StorageError(
            f"{name} was not loaded: ask the list for it (payload=True), or read the row by itself"
        )


def explain_what_is_left_out(entity: object) -> None:
    """Have a detached entity say why a column that its list did not load cannot be read."""
    state: InstanceState[Any] = inspect(entity)
    if state.callables:
        state.callables = {column: _NotLoaded(column) for column in state.callables}


class Repository:
    """Queries on a session; the transaction is the session's owner's.

    Entities come detached: as the database has them now, whatever the session holds, and usable
    after it has ended. Changing one changes no row.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def _entities(self, statement: Select[T], parameters: Parameters = None) -> list[T]:
        with translated(), self._alone() as session:
            found = list(session.scalars(statement, parameters))
        # The same columns of all of them.
        if found and inspect(found[0]).callables:
            for entity in found:
                explain_what_is_left_out(entity)
        return found

    def _entities_with(self, statement: Select[T, U]) -> list[tuple[T, U]]:
        """The entities, each with a value that was selected beside it."""
        with translated(), self._apart() as session:
            found = [(entity, value) for entity, value in session.execute(statement)]
        for entity, _ in found:
            explain_what_is_left_out(entity)
        return found

    @contextmanager
    def _alone(self) -> Iterator[Session]:
        """As `_apart`, for what is done within the block: the session itself if nothing is in it.

        That saves a tenth of what a short list costs.
        """
        if any(True for _ in self._session):
            with self._apart() as session:
                yield session
        else:
            try:
                yield self._session
            finally:
                self._session.expunge_all()

    @contextmanager
    def _apart(self) -> Iterator[Session]:
        """A session in the same transaction that remembers nothing, and lets go of all at its end.

        Rows are also written past the session (COPY), so that what it remembers may be old; and to
        expunge entities one by one costs more than to load them.
        """
        outer = self._session
        if outer.autoflush:
            outer.flush()
        with Session(
            outer.connection(),
            autoflush=False,
            expire_on_commit=False,
            join_transaction_mode="rollback_only",  # nothing is asked of the transaction
        ) as session:
            yield session

    def _entity(self, statement: Select[T], what: str) -> T:
        found = self._entities(statement.limit(1))
        if not found:
            raise NotFound(f"there is no {what}")
        return found[0]

    def _page_of(
        self,
        keyset: Keyset,
        statement: Select[T],
        *,
        query: Mapping[str, Any],
        limit: int,
        after: str | None,
        before: str | None,
        total: Total | None = None,
        count: Callable[[Total], int] | None = None,
        fetch: Callable[[Turn], Sequence[T]] | None = None,
    ) -> Page[T]:
        """A page of the statement's entities, with the total where it is asked for.

        Args:
            query: what tells this query's cursors from those of others on the same list.
            count: finds the total, where the statement itself is not the best way.
            fetch: finds the page's rows, so too.
        """
        arguments.choice("total", total, TOTALS)
        turn = keyset.turn(query=query, limit=limit, after=after, before=before)
        found = self._entities(turn.of(statement)) if fetch is None else fetch(turn)
        page = keyset.page(found, turn, query)
        if total is None:
            return page
        if after is None and before is None and page.next is None:
            return replace(page, total=len(page), total_kind="exact")  # that was all of it
        rows = count(total) if count is not None else self._total(statement, total)
        if total == "estimated":
            seen = len(page) + (page.next is not None) + (page.previous is not None)
            rows = max(rows, seen)
        return replace(page, total=rows, total_kind=total)

    def _total(self, statement: Select[Any], kind: Total) -> int:
        find = count_exactly if kind == "exact" else estimate
        return find(self._session, statement)

    @staticmethod
    def _walk(page_after: Callable[[str | None], Page[T]]) -> Iterator[T]:
        """The rows of all pages, one page at a time in memory."""
        after: str | None = None
        while True:
            page = page_after(after)
            yield from page
            after = page.next
            if after is None:
                return

    def _rows(self, statement: Executable, parameters: Parameters = None) -> Sequence[Any]:
        with translated():
            return self._session.execute(statement, parameters).all()

    def _row(self, statement: Executable) -> Any:
        with translated():
            return self._session.execute(statement).one()

    def _scalar(self, statement: Executable) -> Any:
        with translated():
            return self._session.scalar(statement)

    def _scalars(self, statement: Executable) -> list[Any]:
        with translated():
            return list(self._session.scalars(statement))

    def _stream(self, statement: Executable) -> Iterator[Any]:
        """The rows one by one, a server-side cursor's batch at a time in memory."""
        with translated():
            result = self._session.execute(
                statement, execution_options={"yield_per": _ROWS_AT_A_TIME}
            )
            with result:
                yield from result
