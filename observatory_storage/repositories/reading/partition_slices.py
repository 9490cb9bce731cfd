"""Reads a list in slices of time, so that its statements are planned for few partitions.

Planning takes some 35 µs for each partition that the bounds of a statement do not exclude, whether
or not a row of it is read. A page of a list in order of time is mostly found in a few partitions.
Therefore the slice that is nearest to the beginning of the page is read first, then wider ones. The
last slice has no bound, so the rows that are found do not depend on what is known of partitions.

If a range has few partitions, one statement reads all of it. Where the partitions begin is asked
from time to time, and remembered for each engine.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

import sqlalchemy as sa

from observatory_storage.models import Base
from observatory_storage.repositories.reading.catalog_facts import CatalogFacts
from observatory_storage.repositories.reading.reader import Reader

__all__ = [
    "Cuts",
    "cuts_of",
    "first_found",
    "forget_partitions",
    "through_partitions",
    "whole_partitions",
]

T = TypeVar("T")

# A range of at most this many partitions is read by one statement.
_FEW: Final = 16
# Partitions are made some days ahead. With more of them, the rows are ahead of the clock too.
_MADE_AHEAD: Final = 40
# The least and the most partitions in the first slice. Planning the least costs about as much as
# one more statement.
_FIRST: Final = 8
_WIDEST_FIRST: Final = 32
# The next slice has at most so many times the partitions that have been read.
_GROWTH: Final = 8
# Some more partitions than the rows found so far suggest.
_MARGIN: Final = 1.25
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)

# The server casts the bounds, since it prints them in the time zone and style of the session. The
# bound MINVALUE is NULL.
_STARTS: Final = sa.text(
    "SELECT substring(pg_get_expr(c.relpartbound, c.oid) FROM :pattern)::timestamptz AS start"
    " FROM pg_catalog.pg_class p"
    " JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace"
    " JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid"
    " JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid"
    " WHERE n.nspname = :schema AND p.relname = :table_name"
).bindparams(pattern=r"FROM \('([^']+)'\)")


def _asked_starts(connection: sa.Connection, schema: str, table_name: str) -> Sequence[datetime]:
    rows = connection.execute(_STARTS, {"schema": schema, "table_name": table_name}).all()
    return sorted(row.start or _EARLIEST for row in rows)


_starts: Final = CatalogFacts(_asked_starts)


def forget_partitions(engine: sa.Engine) -> None:
    """Ask the catalog anew before the next list is read."""
    _starts.forget(engine)


class Cuts:
    """Where the slices of a range end, one after the other.

    Args:
        starts: the starts of the range's partitions, in the order in which they are read.
    """

    def __init__(self, starts: Sequence[datetime]) -> None:
        self._starts = starts
        self._first = _FIRST
        self._read = 0

    def expect(self, partitions: int) -> None:
        """Let the first slice have so many partitions, within bounds."""
        self._first = max(_FIRST, min(partitions, _WIDEST_FIRST))

    def down_to(self, moment: datetime) -> int:
        """The number of partitions from the first one to that of a moment, in descending order."""
        earlier = (place for place, start in enumerate(self._starts, 1) if start <= moment)
        return next(earlier, len(self._starts))

    @property
    def is_one(self) -> bool:
        """Whether one slice has the whole range."""
        return not self._starts

    def next(self, found: int = 0, wanted: int = 0) -> datetime | None:
        """The end of the next slice; None if it has all that is left.

        Args:
            found: the number of rows that have been found up to the last cut.
            wanted: the number of rows that are wanted in all.
        """
        width = self._first
        if self._read:
            width = self._read * (_GROWTH - 1)
            if found:
                suggested = int(self._read * (wanted - found) / found * _MARGIN) + 1
                width = min(width, max(suggested, self._read // 2))
        self._read += width
        # A remainder that is as small as the slices so far is not worth a statement of its own.
        if self._read + self._read // 2 >= len(self._starts):
            self._read = len(self._starts)
            return None
        return self._starts[self._read - 1]


def cuts_of(
    reader: Reader,
    model: type[Base],
    start: datetime | None,
    end: datetime | None,
    *,
    descending: bool,
) -> Cuts:
    """The cuts of [start, end). In descending order, each is the lower bound of its slice.

    Without an end, a descending range begins now: its first slice has all that is newer too.
    """
    starts = _starts.of(reader, model)
    if len(starts) <= _FEW:
        return Cuts(())
    first = 0 if start is None else max(bisect_right(starts, start) - 1, 0)
    last = len(starts)
    if end is not None:
        last = bisect_left(starts, end)
    elif descending:
        begun = bisect_left(starts, datetime.now(UTC))
        last = begun if last - begun <= _MADE_AHEAD else last
    within = starts[first:last]
    if len(within) <= _FEW:
        return Cuts(())
    return Cuts(within[::-1] if descending else within[1:])


def through_partitions(
    cuts: Cuts,
    row_limit: int,
    find: Callable[[datetime | None, datetime | None, int], Sequence[T]],
    *,
    descending: bool,
) -> list[T]:
    """The first rows of a range, in the order of the list.

    Args:
        find: takes the start, the end and the most rows of a slice, and returns its rows in order.
            A bound that is None is that of the range.
    """
    rows: list[T] = []
    edge: datetime | None = None
    while True:
        cut = cuts.next(len(rows), row_limit)
        low, high = (cut, edge) if descending else (edge, cut)
        rows += find(low, high, row_limit - len(rows))
        if cut is None or len(rows) == row_limit:
            return rows
        edge = cut


def first_found(
    cuts: Cuts, find: Callable[[datetime | None, datetime | None], T | None], *, descending: bool
) -> T | None:
    """The first result that is not None."""

    def as_rows(low: datetime | None, high: datetime | None, _limit: int) -> Sequence[T]:
        found = find(low, high)
        return () if found is None else (found,)

    return next(iter(through_partitions(cuts, 1, as_rows, descending=descending)), None)


def whole_partitions(
    reader: Reader, model: type[Base], ranges: Iterable[tuple[datetime, datetime]]
) -> list[tuple[datetime, datetime]]:
    """The ranges, each extended to the ends of the partitions in which it begins and ends."""
    starts = _starts.of(reader, model)
    found = []
    for low, high in ranges:
        first, following = bisect_right(starts, low) - 1, bisect_left(starts, high)
        # There may be a gap before the next partition.
        found.append(
            (
                starts[first] if first >= 0 else low,
                starts[following] if following < len(starts) else _LATEST,
            )
        )
    return found
