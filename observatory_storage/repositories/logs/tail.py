"""Following the log as it grows: what a poll may give, and where the next one goes on.

Records do not become visible in the order of their timestamps, nor of anything else that a column
holds: a transaction that wrote first may commit last. So the tail goes by the transactions'
numbers (``xmin``, which every row has; a savepoint has a later one of its own). A record is
settled when every transaction with a smaller number than its own has ended; a poll gives the
settled records in the order of those numbers, and within one by time. Nothing can be put before
what a poll has passed: no record is skipped and none is given twice, whatever its timestamp. The
price is that a transaction that has written something, in any database of the server, holds the
tail up until it ends.

No index knows ``xmin``, so ``created_at``, which is when a row's transaction began, bounds the
search. Each poll notes when the oldest transaction now running began; once all numbers that were
given out by then have settled, nothing that is yet to come began before. Transactions that the
server does not show to this role are trusted to begin writing within a minute of their start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Text,
    and_,
    cast,
    column,
    func,
    literal,
    literal_column,
    or_,
    select,
    table,
    tuple_,
)
from sqlalchemy.orm.interfaces import ORMOption

from observatory_storage.errors import ValidationError
from observatory_storage.models import LogRecord
from observatory_storage.repositories.logs.filters import LogFilters
from observatory_storage.repositories.reading.conditions import asked
from observatory_storage.repositories.reading.pages import (
    NOT_A_KEY,
    Page,
    damaged,
    decode_cursor,
    encode_cursor,
    from_plain,
    key_value,
    to_plain,
)
from observatory_storage.repositories.reading.reader import Repository

__all__ = ["Tail"]

_LIST_NAME: Final = "tail"
_TRUSTED: Final = timedelta(minutes=1)
# ``xmin`` has the lower 32 bits of a transaction's number.
_XIDS: Final = 2**32
_KEY: Final = (LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id)
_ACTIVITY: Final = table(
    "pg_stat_activity",
    column("xact_start", DateTime(timezone=True)),
    column("datname", Text),
    schema="pg_catalog",
)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tail stands.

    Attributes:
        xid: all records of transactions with smaller numbers have been given,
        key: and of this one those up to this key; None where none of it have.
        since: no record that is yet to be given is of a transaction that began earlier.
        mark_xid: the first number that had not been given out when ``mark_since`` was noted.
        mark_since: what ``since`` will be when all smaller numbers have settled.
    """

    xid: int
    key: tuple[datetime, int, UUID] | None
    since: datetime
    mark_xid: int
    mark_since: datetime


class Tail(Repository):
    """One poll at a time."""

    def poll(
        self, cursor: str | None, filters: LogFilters, options: Sequence[ORMOption]
    ) -> Page[LogRecord]:
        """The records that settled since the cursor's poll; without one, the newest."""
        # In this order: whoever is given a number after the second began after, or is in the first.
        oldest = self._oldest_start() - _TRUSTED
        settled, unused = self._numbers()
        if cursor is None:
            rows = self._newest(filters, settled, options)
            place = _Place(settled, None, oldest, unused, oldest)
        else:
            place = _read(cursor, asked(filters), settled)
            rows, place = self._beyond(place, filters, settled, options)
            if place.key is None and place.mark_xid <= settled:
                place = replace(place, since=place.mark_since, mark_xid=unused, mark_since=oldest)
        return Page(tuple(rows), next=_written(place, asked(filters)))

    def _oldest_start(self) -> datetime:
        """When the oldest transaction began that runs in this database: not after our own did."""
        visible = select(func.min(_ACTIVITY.c.xact_start)).where(
            _ACTIVITY.c.datname == func.current_database()
        )
        oldest: datetime = self._scalar(
            select(func.least(visible.scalar_subquery(), func.transaction_timestamp()))
        )
        return oldest.astimezone(UTC)

    def _numbers(self) -> tuple[int, int]:
        """Below the first number all transactions have ended; the second is not given out yet."""
        snapshot = func.pg_current_snapshot()
        ends = (func.pg_snapshot_xmin(snapshot), func.pg_snapshot_xmax(snapshot))
        settled, unused = self._row(select(*(cast(cast(e, Text), BigInteger) for e in ends)))
        return settled, unused

    def _newest(
        self, filters: LogFilters, settled: int, options: Sequence[ORMOption]
    ) -> list[LogRecord]:
        rows = self._entities(
            select(LogRecord)
            .where(*filters.conditions(), _age(settled).between(1, _XIDS // 2))
            .order_by(*(c.desc() for c in _KEY))
            .limit(filters.limit)
            .options(*options)
        )
        return rows[::-1]

    def _beyond(
        self, place: _Place, filters: LogFilters, settled: int, options: Sequence[ORMOption]
    ) -> tuple[list[LogRecord], _Place]:
        age, passed = _age(settled), settled - place.xid
        if place.key is None:
            unseen: ColumnElement[bool] = age <= passed
        else:
            key = tuple_(*(literal(v, c.type) for v, c in zip(place.key, _KEY, strict=True)))
            unseen = or_(age < passed, and_(age == passed, tuple_(*_KEY) > key))
        pairs = self._entities_with(
            select(LogRecord, age.label("age"))
            .where(LogRecord.created_at >= place.since, *filters.conditions(), age >= 1, unseen)
            .order_by(age.desc(), *_KEY)
            .limit(filters.limit)
            .options(*options)
        )
        rows = [record for record, _ in pairs]
        if len(rows) < filters.limit:
            return rows, replace(place, xid=settled, key=None)
        last, its_age = pairs[-1]
        key_of_last = (last.timestamp, last.timestamp_ns, last.id)
        return rows, replace(place, xid=settled - its_age, key=key_of_last)


def _age(settled: int) -> ColumnElement[int]:
    """How many numbers before ``settled`` the row's transaction has; numbers wrap at 32 bits."""
    xmin = literal_column("xmin::text::bigint", BigInteger)
    return (literal(settled % _XIDS + _XIDS, BigInteger) - xmin) % literal(_XIDS, BigInteger)


def _written(place: _Place, query: Mapping[str, Any]) -> str:
    key = None if place.key is None else [to_plain(value) for value in place.key]
    times = (place.since, place.mark_since)
    values = [place.xid, key, place.mark_xid, *(to_plain(value) for value in times)]
    return encode_cursor(_LIST_NAME, query, values)


def _read(cursor: str, query: Mapping[str, Any], settled: int) -> _Place:
    values = decode_cursor("cursor", cursor, _LIST_NAME, query)
    try:
        place = _place(*values)
    except NOT_A_KEY:
        raise damaged("cursor", cursor) from None
    if not 0 <= settled - place.xid < _XIDS // 2:
        raise ValidationError("cursor", cursor, "is too old, or of another server")
    return place


def _place(xid: Any, key: Any, mark_xid: Any, since: Any, mark_since: Any) -> _Place:
    if key is not None:
        timestamp, timestamp_ns, id_ = (
            key_value(value, column.type) for value, column in zip(key, _KEY, strict=True)
        )
        key = (timestamp, timestamp_ns, id_)
    return _Place(
        key_value(xid, BigInteger()),
        key,
        from_plain(since, datetime),
        key_value(mark_xid, BigInteger()),
        from_plain(mark_since, datetime),
    )
