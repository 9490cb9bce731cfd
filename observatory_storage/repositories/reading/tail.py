"""The tail of a table: which rows a poll returns, and where the next poll continues.

Rows do not become visible in the order of any column: a transaction that wrote first may commit
last. Therefore the tail follows transaction ids (``xmin``, which every row has; a savepoint has its
own, later id). A row is settled when every transaction with a smaller id has ended. A poll
returns the settled rows in the order of these ids; rows of one transaction are ordered by time. No
row can become visible at a position that a poll has passed, so none is skipped or returned twice,
whatever its timestamp. A row that is changed later has a new id, and is returned again if it was
first written shortly before. The price: a transaction that has written something, in any
database of the server, delays the tail until it ends.

No index has ``xmin``. The search is bounded by ``created_at``, the time at which a row's
transaction began. Each poll records when the oldest running transaction began. When all transaction
ids that had been assigned by then have settled, every later row belongs to a transaction that
began after this time. Some transactions are not visible to this role; they are assumed to begin
writing within a minute of their start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.orm.interfaces import ORMOption

from observatory_storage.errors import ReadOnly, ValidationError
from observatory_storage.repositories.reading import cursors
from observatory_storage.repositories.reading.filter_fields import Conditions
from observatory_storage.repositories.reading.pages import Page
from observatory_storage.repositories.reading.reader import Reader

__all__ = ["Decide", "Pages", "Tail", "TailFilters", "TailedRows"]

T = TypeVar("T")
P = TypeVar("P")

Decide = Callable[[Sequence[T]], Sequence[T]]

_TRUSTED: Final = timedelta(minutes=1)
# The most pages that a poll reads to fill one. The next poll goes on.
_MOST_PAGES: Final = 20
# ``xmin`` has the lower 32 bits of a transaction's number.
_XIDS: Final = 2**32
_ACTIVITY: Final = sa.table(
    "pg_stat_activity",
    sa.column("xact_start", sa.DateTime(timezone=True)),
    sa.column("datname", sa.Text),
    schema="pg_catalog",
)


class TailFilters(Protocol):
    """The parts of filters that a tail needs."""

    @property
    def limit(self) -> int: ...
    def query(self) -> dict[str, Any]: ...
    def conditions(self) -> Conditions: ...


@dataclass(frozen=True, slots=True)
class TailedRows(Generic[T]):
    """What is followed.

    Attributes:
        name: names the tail in cursors and errors.
        model: the entity.
        key: the order of the rows of one transaction, which tells all rows apart.
    """

    name: str
    model: type[T]
    key: tuple[InstrumentedAttribute[Any], ...]


@dataclass(frozen=True, slots=True)
class _Position:
    """The position of a tail.

    Attributes:
        xid: all rows of transactions with smaller ids have been returned.
        key: the rows of transaction `xid` have been returned up to this key; None if none has.
        since: every row that has not been returned belongs to a transaction that began at this
            time or later.
        mark_xid: the first transaction id that had not been assigned when ``mark_since`` was
            recorded.
        mark_since: becomes ``since`` when all smaller ids have settled.
    """

    xid: int
    key: tuple[Any, ...] | None
    since: datetime
    mark_xid: int
    mark_since: datetime


@dataclass(frozen=True, slots=True)
class Pages(Generic[T, P]):
    """The rows beyond a place, page by page.

    Attributes:
        beyond: the statement for the rows beyond a place, each with the moment that orders it.
        reached: the place that a row, with its moment, has.
        limit: the most rows of a page.
    """

    beyond: Callable[[P], sa.Select[Any]]
    reached: Callable[[T, Any], P]
    limit: int


class Tail(Generic[T]):
    """Follows rows, one poll at a time."""

    def __init__(self, reader: Reader, rows: TailedRows[T]) -> None:
        self._reader = reader
        self._rows = rows

    def poll(
        self,
        cursor: str | None,
        filters: TailFilters,
        options: Sequence[ORMOption],
        decide: Decide[T] | None = None,
    ) -> Page[T]:
        """The rows that settled since the cursor's poll; without a cursor, the newest ones.

        Args:
            decide: returns those of some rows that match, if the conditions of the filters do not
                decide. Then more is read until the page is full.
        """
        # In this order: a transaction that gets its number after the second statement either began
        # after the first, or is seen by it.
        oldest = self._oldest_start() - _TRUSTED
        settled, unused = self._numbers()
        if cursor is None:
            rows = self._newest(filters, settled, options, decide)
            place = _Position(settled, None, oldest, unused, oldest)
        else:
            place = self._position_at(cursor, filters.query(), settled)
            rows, place = self._beyond(place, filters, settled, options, decide)
            if place.key is None and place.mark_xid <= settled:
                place = replace(place, since=place.mark_since, mark_xid=unused, mark_since=oldest)
        return Page(tuple(rows), next=self._cursor_of(place, filters.query()))

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
            raise ReadOnly(
                f"{self._rows.name} cannot follow rows on a standby: connect to the primary"
            )
        return settled, unused

    def _newest(
        self,
        filters: TailFilters,
        settled: int,
        options: Sequence[ORMOption],
        decide: Decide[T] | None,
    ) -> list[T]:
        newest = self._newest_first(filters, options)
        is_settled = _age(settled).between(1, _XIDS // 2)
        return self._newest_of(newest.where(is_settled), filters.limit, decide)

    def _newest_first(self, filters: TailFilters, options: Sequence[ORMOption]) -> sa.Select[T]:
        return (
            sa.select(self._rows.model)
            .where(*filters.conditions())
            .order_by(*(c.desc() for c in self._rows.key))
            .limit(filters.limit)
            .options(*options)
        )

    def _newest_of(self, newest: sa.Select[T], limit: int, decide: Decide[T] | None) -> list[T]:
        """The newest rows that match, the oldest of them first."""
        time = self._rows.key[0]
        found: list[T] = []
        page = newest
        while True:
            rows = self._reader.entities(page)
            found += rows if decide is None else decide(rows)
            if len(rows) < limit or len(found) >= limit:
                return found[:limit][::-1]
            key = self._key_of(rows[-1])
            # The condition on the time prunes partitions.
            page = newest.where(sa.tuple_(*self._rows.key) < self._literal(key), time <= key[0])

    def _beyond(
        self,
        place: _Position,
        filters: TailFilters,
        settled: int,
        options: Sequence[ORMOption],
        decide: Decide[T] | None,
    ) -> tuple[list[T], _Position]:
        model: Any = self._rows.model
        age, limit = _age(settled), filters.limit
        unseen = (
            sa.select(model, age.label("age"))
            .where(model.created_at >= place.since, *filters.conditions(), age >= 1)
            .order_by(age.desc(), *self._rows.key)
            .limit(limit)
            .options(*options)
        )

        def reached(row: T, its_age: int) -> _Position:
            return replace(place, xid=settled - its_age, key=self._key_of(row))

        pages = Pages(lambda at: unseen.where(self._is_beyond(at, settled)), reached, limit)
        found, place, is_end = self._read(pages, place, decide)
        return found, replace(place, xid=settled, key=None) if is_end else place

    def _read(
        self, pages: Pages[T, P], place: P, decide: Decide[T] | None
    ) -> tuple[list[T], P, bool]:
        """The next rows that match, the place that was reached, and whether it is the end."""
        found: list[T] = []
        for _ in range(_MOST_PAGES):
            pairs: Sequence[tuple[T, Any]] = self._reader.entities_with(pages.beyond(place))
            rows = [row for row, _ in pairs]
            matching = {id(row) for row in (rows if decide is None else decide(rows))}
            for row, moment in pairs:
                if id(row) in matching:
                    found.append(row)
                    if len(found) == pages.limit:
                        return found, pages.reached(row, moment), False
            if len(pairs) < pages.limit:
                return found, place, True
            place = pages.reached(*pairs[-1])
        return found, place, False

    def _is_beyond(self, place: _Position, settled: int) -> sa.ColumnElement[bool]:
        """Whether a row was not returned when the tail was at the position."""
        age, passed = _age(settled), settled - place.xid
        if place.key is None:
            return age <= passed
        is_next = sa.tuple_(*self._rows.key) > self._literal(place.key)
        return sa.or_(age < passed, sa.and_(age == passed, is_next))

    def _key_of(self, row: T) -> tuple[Any, ...]:
        return tuple(getattr(row, column.key) for column in self._rows.key)

    def _literal(self, key: tuple[Any, ...]) -> sa.Tuple:
        values = zip(key, self._rows.key, strict=True)
        return sa.tuple_(*(sa.literal(value, column.type) for value, column in values))

    def _cursor_of(self, place: _Position, query: Mapping[str, Any]) -> str:
        key = None if place.key is None else [cursors.to_plain(value) for value in place.key]
        times = (place.since, place.mark_since)
        values = [place.xid, key, place.mark_xid, *(cursors.to_plain(value) for value in times)]
        return cursors.encode_cursor(self._rows.name, query, values)

    def _position_at(self, cursor: str, query: Mapping[str, Any], settled: int) -> _Position:
        values = cursors.decode_cursor("cursor", cursor, self._rows.name, query)
        try:
            place = self._position(*values)
        except cursors.NOT_A_KEY:
            raise cursors.damaged_cursor("cursor", cursor) from None
        if not 0 <= settled - place.xid < _XIDS // 2:
            raise ValidationError("cursor", cursor, "is too old, or of another server")
        return place

    def _position(
        self, xid: Any, key: Any, mark_xid: Any, since: Any, mark_since: Any
    ) -> _Position:
        if key is not None:
            columns = self._rows.key
            key = tuple(cursors.key_value(v, c.type) for v, c in zip(key, columns, strict=True))
        return _Position(
            cursors.key_value(xid, sa.BigInteger()),
            key,
            cursors.from_plain(since, datetime),
            cursors.key_value(mark_xid, sa.BigInteger()),
            cursors.from_plain(mark_since, datetime),
        )


def _age(settled: int) -> sa.ColumnElement[int]:
    """The distance from the row's transaction id to ``settled``; ids wrap at 32 bits."""
    xmin = sa.literal_column("xmin::text::bigint", sa.BigInteger)
    return (sa.literal(settled % _XIDS + _XIDS, sa.BigInteger) - xmin) % sa.literal(
        _XIDS, sa.BigInteger
    )
