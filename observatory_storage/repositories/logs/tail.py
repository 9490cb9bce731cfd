"""The tail of the log: which records a poll returns, and where the next poll continues.

Records do not become visible in the order of any column: a transaction that wrote first may commit
last. Therefore the tail follows transaction ids (``xmin``, which every row has; a savepoint has its
own, later id). A record is settled when every transaction with a smaller id has ended. A poll
returns the settled records in the order of these ids; records of one transaction are ordered by
time. No record can become visible at a position that a poll has passed, so no record is skipped or
returned twice, whatever its timestamp. The price: a transaction that has written something, in any
database of the server, delays the tail until it ends.

No index has ``xmin``. The search is bounded by ``created_at``, the time at which a row's
transaction began. Each poll records when the oldest running transaction began. When all transaction
ids that had been assigned by then have settled, every later record belongs to a transaction that
began after this time. Some transactions are not visible to this role; they are assumed to begin
writing within a minute of their start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm.interfaces import ORMOption

from observatory_storage.errors import StorageError, ValidationError
from observatory_storage.models import LogRecord
from observatory_storage.repositories.logs.filters import LogFilters
from observatory_storage.repositories.logs.framed_records import FramedRecords
from observatory_storage.repositories.reading import cursors
from observatory_storage.repositories.reading.pages import Page
from observatory_storage.repositories.reading.reader import Reader

__all__ = ["Tail"]

_LIST_NAME: Final = "tail"
_TRUSTED: Final = timedelta(minutes=1)
# ``xmin`` has the lower 32 bits of a transaction's number.
_XIDS: Final = 2**32
_KEY: Final = (LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id)
_ACTIVITY: Final = sa.table(
    "pg_stat_activity",
    sa.column("xact_start", sa.DateTime(timezone=True)),
    sa.column("datname", sa.Text),
    schema="pg_catalog",
)


@dataclass(frozen=True, slots=True)
class _Position:
    """The position of a tail.

    Attributes:
        xid: all records of transactions with smaller ids have been returned.
        key: the records of transaction `xid` have been returned up to this key; None if none has.
        since: every record that has not been returned belongs to a transaction that began at this
            time or later.
        mark_xid: the first transaction id that had not been assigned when ``mark_since`` was
            recorded.
        mark_since: becomes ``since`` when all smaller ids have settled.
    """

    xid: int
    key: tuple[datetime, int, UUID] | None
    since: datetime
    mark_xid: int
    mark_since: datetime


class Tail:
    """Follows the log, one poll at a time."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def poll(
        self, cursor: str | None, filters: LogFilters, options: Sequence[ORMOption]
    ) -> Page[LogRecord]:
        """The records that settled since the cursor's poll; without a cursor, the newest ones."""
        # In this order: a transaction that gets its number after the second statement either began
        # after the first, or is seen by it.
        oldest = self._oldest_start() - _TRUSTED
        settled, unused = self._numbers()
        if cursor is None:
            rows = self._newest(filters, settled, options)
            place = _Position(settled, None, oldest, unused, oldest)
        else:
            place = _position_at(cursor, filters.query(), settled)
            rows, place = self._beyond(place, filters, settled, options)
            if place.key is None and place.mark_xid <= settled:
                place = replace(place, since=place.mark_since, mark_xid=unused, mark_since=oldest)
        return Page(tuple(rows), next=_cursor_of(place, filters.query()))

    def _oldest_start(self) -> datetime:
        """The start of the oldest transaction that runs in this database, at the latest our own."""
        visible = sa.select(sa.func.min(_ACTIVITY.c.xact_start)).where(
            _ACTIVITY.c.datname == sa.func.current_database()
        )
        oldest: datetime = self._reader.scalar(
            sa.select(sa.func.least(visible.scalar_subquery(), sa.func.transaction_timestamp()))
        )
        return oldest.astimezone(UTC)

    def _numbers(self) -> tuple[int, int]:
        """Two transaction ids: all below the first have ended; the second is not assigned yet."""
        snapshot = sa.func.pg_current_snapshot()
        ends = (sa.func.pg_snapshot_xmin(snapshot), sa.func.pg_snapshot_xmax(snapshot))
        settled, unused, is_standby = self._reader.row(
            sa.select(
                *(sa.cast(sa.cast(e, sa.Text), sa.BigInteger) for e in ends),
                sa.func.pg_is_in_recovery(),
            )
        )
        if is_standby:
            # A standby's snapshot does not say which transactions of the primary are under way.
            raise StorageError(
                "logs.tail cannot follow the log on a standby: connect to the primary"
            )
        return settled, unused

    def _newest(
        self, filters: LogFilters, settled: int, options: Sequence[ORMOption]
    ) -> list[LogRecord]:
        framed = FramedRecords(self._reader.session, filters)
        newest = (
            sa.select(LogRecord)
            .where(*framed.conditions(), _age(settled).between(1, _XIDS // 2))
            .order_by(*(c.desc() for c in _KEY))
            .limit(filters.limit)
            .options(*options)
        )
        found: list[LogRecord] = []
        page = newest
        while True:
            rows = self._reader.entities(page)
            found += framed.decided(rows)
            if len(rows) < filters.limit or len(found) >= filters.limit:
                return found[: filters.limit][::-1]
            key = _key_of(rows[-1])
            page = newest.where(sa.tuple_(*_KEY) < _literal(key), LogRecord.timestamp <= key[0])

    def _beyond(
        self, place: _Position, filters: LogFilters, settled: int, options: Sequence[ORMOption]
    ) -> tuple[list[LogRecord], _Position]:
        framed = FramedRecords(self._reader.session, filters)
        age = _age(settled)
        unseen = (
            sa.select(LogRecord, age.label("age"))
            .where(LogRecord.created_at >= place.since, *framed.conditions(), age >= 1)
            .order_by(age.desc(), *_KEY)
            .limit(filters.limit)
            .options(*options)
        )
        found: list[LogRecord] = []
        while True:
            pairs = self._reader.entities_with(unseen.where(_is_beyond(place, settled)))
            matching = set(map(id, framed.decided([record for record, _ in pairs])))
            for record, its_age in pairs:
                place = replace(place, xid=settled - its_age, key=_key_of(record))
                if id(record) in matching:
                    found.append(record)
                if len(found) == filters.limit:
                    return found, place
            if len(pairs) < filters.limit:
                return found, replace(place, xid=settled, key=None)


def _is_beyond(place: _Position, settled: int) -> sa.ColumnElement[bool]:
    """Whether a record was not returned when the tail was at the position."""
    age, passed = _age(settled), settled - place.xid
    if place.key is None:
        return age <= passed
    is_next = sa.tuple_(*_KEY) > _literal(place.key)
    return sa.or_(age < passed, sa.and_(age == passed, is_next))


def _key_of(record: LogRecord) -> tuple[datetime, int, UUID]:
    return record.timestamp, record.timestamp_ns, record.id


def _literal(key: tuple[datetime, int, UUID]) -> sa.Tuple:
    return sa.tuple_(*(sa.literal(v, c.type) for v, c in zip(key, _KEY, strict=True)))


def _age(settled: int) -> sa.ColumnElement[int]:
    """The distance from the row's transaction id to ``settled``; ids wrap at 32 bits."""
    xmin = sa.literal_column("xmin::text::bigint", sa.BigInteger)
    return (sa.literal(settled % _XIDS + _XIDS, sa.BigInteger) - xmin) % sa.literal(
        _XIDS, sa.BigInteger
    )


def _cursor_of(place: _Position, query: Mapping[str, Any]) -> str:
    key = None if place.key is None else [cursors.to_plain(value) for value in place.key]
    times = (place.since, place.mark_since)
    values = [place.xid, key, place.mark_xid, *(cursors.to_plain(value) for value in times)]
    return cursors.encode_cursor(_LIST_NAME, query, values)


def _position_at(cursor: str, query: Mapping[str, Any], settled: int) -> _Position:
    values = cursors.decode_cursor("cursor", cursor, _LIST_NAME, query)
    try:
        place = _position(*values)
    except cursors.NOT_A_KEY:
        raise cursors.damaged_cursor("cursor", cursor) from None
    if not 0 <= settled - place.xid < _XIDS // 2:
        raise ValidationError("cursor", cursor, "is too old, or of another server")
    return place


def _position(xid: Any, key: Any, mark_xid: Any, since: Any, mark_since: Any) -> _Position:
    if key is not None:
        timestamp, timestamp_ns, id_ = (
            cursors.key_value(value, column.type) for value, column in zip(key, _KEY, strict=True)
        )
        key = (timestamp, timestamp_ns, id_)
    return _Position(
        cursors.key_value(xid, sa.BigInteger()),
        key,
        cursors.from_plain(since, datetime),
        cursors.key_value(mark_xid, sa.BigInteger()),
        cursors.from_plain(mark_since, datetime),
    )
