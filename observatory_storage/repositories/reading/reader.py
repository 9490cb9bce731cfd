"""What the repositories share: one door to the session, and entities that leave it whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import CursorResult, Select
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.sql import Executable

from observatory_storage.errors import NotFound, translated
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.counting import TOTALS, Total, count_exactly, estimate
from observatory_storage.repositories.reading.entities import Maker, entity_of, mapper_of
from observatory_storage.repositories.reading.pages import Keyset, Page, Turn
from observatory_storage.repositories.reading.streams import batches

__all__ = ["Repository"]

T = TypeVar("T")
U = TypeVar("U")
Parameters = Mapping[str, Any] | None

_ROWS_AT_A_TIME = 1000


class Repository:
    """Queries on a session; the transaction is the session's owner's.

    Entities come detached: as the database has them now, whatever the session holds, and usable
    after it has ended. Changing one changes no row.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def _entities(self, statement: Select[T], parameters: Parameters = None) -> list[T]:
        with translated():
            found, make = self._found(statement, parameters)
            return list(make(found.all()))

    def _entities_with(
        self, statement: Select[T, U], parameters: Parameters = None
    ) -> list[tuple[T, U]]:
        """The entities, each with a value that was selected beside it."""
        with translated():
            found, make = self._found(statement, parameters)
            rows = found.all()
            return [(entity, row[-1]) for entity, row in zip(make(rows), rows, strict=True)]

    def _entity_batches(self, statement: Select[T], batch_size: int) -> Iterator[Sequence[T]]:
        """The entities, a server-side cursor's batch at a time in memory."""
        with translated():
            found, make = self._found(statement, yield_per=batch_size)
            for rows in batches(self._session, found):
                yield list(make(rows))

    def _found(
        self, statement: Any, parameters: Parameters = None, **options: Any
    ) -> tuple[CursorResult[Any], Maker[Any]]:
        """The result of a statement that begins with an entity, and what makes these."""
        mapper = entity_of(statement)
        found = self._executed(mapper, statement, parameters, options)
        return found, Maker(mapper, found.keys())

    def _executed(
        self,
        mapper: Mapper[Any] | None,
        statement: Executable,
        parameters: Parameters,
        options: Mapping[str, Any],
    ) -> CursorResult[Any]:
        """The rows of a statement, past what the session remembers."""
        if self._session.autoflush:
            self._session.flush()
        connection = self._session.connection({"mapper": mapper, "clause": statement})
        return connection.execute(statement, parameters, execution_options=options)

    def _entity(self, statement: Select[T], parameters: Parameters, what: str) -> T:
        """The first row of the statement, which is about `what`."""
        found = self._entities(statement, parameters)
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
        validation.choice("total", total, TOTALS)
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

    def _stream(self, statement: Select[*tuple[Any, ...]]) -> Iterator[Any]:
        """The rows one by one, a server-side cursor's batch at a time in memory."""
        options = {"yield_per": _ROWS_AT_A_TIME}
        with translated():
            result = self._executed(mapper_of(statement), statement, None, options)
            for rows in batches(self._session, result):
                yield from rows
