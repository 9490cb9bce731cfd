"""The tail of a table with shards, where no transaction ids say which rows have settled.

The rows of a transaction have its start, by the coordinator's clock, as ``created_at``. A row is
settled when every transaction that began earlier or at the same time has ended. The coordinator
lists a transaction until all workers have committed it. If a worker fails while it commits, Citus
completes the commit within a minute after the worker has come back; no row settles meanwhile.

A row is returned once, when it was first written: its changes are not followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm.interfaces import ORMOption

from observatory_storage.distribution import commits_end
from observatory_storage.errors import StorageError
from observatory_storage.repositories.reading import cursors
from observatory_storage.repositories.reading.pages import Page
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.tail import (
    Decide,
    Pages,
    Tail,
    TailedRows,
    TailFilters,
)

__all__ = ["ShardedTail", "tail_of"]

T = TypeVar("T")

# How long a poll waits for workers to commit; the next one waits again.
_PATIENCE_SECS: Final = 0.2
# Without the privilege, a session of another role does not show whether it has a transaction.
_OLDEST: Final = sa.text(
    "SELECT min(a.xact_start), pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')"
    " FROM pg_catalog.pg_stat_activity AS a WHERE a.datname = current_database()"
)


def tail_of(reader: Reader, rows: TailedRows[T]) -> Tail[T]:
    """The tail for the layout of the tables."""
    return ShardedTail(reader, rows) if reader.is_sharded else Tail(reader, rows)


@dataclass(frozen=True, slots=True)
class _Place:
    """The position of a tail.

    Attributes:
        time: all rows of transactions that began earlier have been returned.
        key: the rows of those that began at this time have been returned up to this key; None if
            none has.
    """

    time: datetime
    key: tuple[Any, ...] | None


class ShardedTail(Tail[T]):
    """Follows the rows of tables that have shards, one poll at a time."""

    def poll(
        self,
        cursor: str | None,
        filters: TailFilters,
        options: Sequence[ORMOption],
        decide: Decide[T] | None = None,
    ) -> Page[T]:
        query = filters.query()
        settled = self._oldest_transaction()
        place = None if cursor is None else self._place_at(cursor, query)
        if not commits_end(self._reader.connection(), _PATIENCE_SECS):
            # What they have written may be older than rows that are visible.
            settled = datetime.min.replace(tzinfo=UTC) if place is None else place.time
        if place is None:
            rows = self._newest_before(settled, filters, options, decide)
            place = _Place(settled, None)
        else:
            rows, place = self._after(place, settled, filters, options, decide)
        return Page(tuple(rows), next=self._cursor_at(place, query))

    def _oldest_transaction(self) -> datetime:
        """When the oldest running transaction of the database began.

        Raises:
            StorageError: the role cannot see the transactions of others.
        """
        ((oldest, sees_all),) = self._reader.connection().execute(_OLDEST)
        if not sees_all:
            raise StorageError(
                "a tail of tables with shards needs to see the transactions of other roles:"
                " GRANT pg_read_all_stats to the role of this connection"
            )
        started: datetime = oldest
        return started.astimezone(UTC)

    def _newest_before(
        self,
        settled: datetime,
        filters: TailFilters,
        options: Sequence[ORMOption],
        decide: Decide[T] | None,
    ) -> list[T]:
        model: Any = self._rows.model
        newest = self._newest_first(filters, options).where(model.created_at < settled)
        return self._newest_of(newest, filters.limit, decide)

    def _after(
        self,
        place: _Place,
        settled: datetime,
        filters: TailFilters,
        options: Sequence[ORMOption],
        decide: Decide[T] | None,
    ) -> tuple[list[T], _Place]:
        model: Any = self._rows.model
        created, limit = model.created_at, filters.limit
        unseen = (
            sa.select(model, created.label("created"))
            .where(created < settled, *filters.conditions())
            .order_by(created, *self._rows.key)
            .limit(limit)
            .options(*options)
        )

        def beyond(at: _Place) -> sa.Select[Any]:
            page = unseen.where(created >= at.time)
            if at.key is None:
                return page
            is_next = sa.tuple_(*self._rows.key) > self._literal(at.key)
            return page.where(sa.or_(created > at.time, is_next))

        def reached(row: T, its_time: datetime) -> _Place:
            return _Place(its_time.astimezone(UTC), self._key_of(row))

        found, place, is_end = self._read(Pages(beyond, reached, limit), place, decide)
        # While an older transaction runs, less may be settled than at an earlier poll.
        return found, _Place(settled, None) if is_end and settled > place.time else place

    def _cursor_at(self, place: _Place, query: Mapping[str, Any]) -> str:
        key = None if place.key is None else [cursors.to_plain(value) for value in place.key]
        values = [cursors.to_plain(place.time), key]
        return cursors.encode_cursor(self._rows.name, query, values)

    def _place_at(self, cursor: str, query: Mapping[str, Any]) -> _Place:
        values = cursors.decode_cursor("cursor", cursor, self._rows.name, query)
        try:
            time, key = values
            if key is not None:
                columns = zip(key, self._rows.key, strict=True)
                key = tuple(cursors.key_value(value, column.type) for value, column in columns)
            return _Place(cursors.from_plain(time, datetime), key)
        except cursors.NOT_A_KEY:
            raise cursors.damaged_cursor("cursor", cursor) from None
