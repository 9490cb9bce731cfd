"""Log records found by the words of their bodies: the newest first, or the best first.

In order of time the planner would rather walk the records, newest first, and look for the words in
each body: it cannot know how rare a word is. That is fine for one that every other record has, and
takes seconds for one that hardly any has. So the time is cut into slices, each wider than the one
before: all that match within a slice are found by the full-text index and put in order, and the
first slices that fill the page end the search. Frequent words fill it soon, and of rare ones there
are few in the widest slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Double, Select, Subquery, cast, func, literal_column, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, defer

from observatory_storage.models import LogRecord
from observatory_storage.repositories.logs.filters import LogFilters
from observatory_storage.repositories.reading.conditions import asked, equal, within
from observatory_storage.repositories.reading.counting import Total
from observatory_storage.repositories.reading.pages import Keyset, Page, Turn
from observatory_storage.repositories.reading.reader import Repository
from observatory_storage.repositories.reading.text_search import text_query

__all__ = ["LOGS", "LogSearch"]

LOGS: Final = Keyset("logs", (LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id))

# Where the slices end, counted from where the page begins; the last one is all the rest.
_SLICES: Final = (
    timedelta(minutes=10),
    timedelta(hours=2),
    timedelta(days=1),
    timedelta(days=12),
)
# Of two bodies in which the words stand alike, the shorter fits better.
_DIVIDED_BY_LENGTH: Final = 1


class _Ranked(NamedTuple):
    """A record with the key that it is sorted by."""

    rank: float
    timestamp: datetime
    timestamp_ns: int
    id: UUID
    record: LogRecord


class LogSearch(Repository):
    """One search: filters with a text, and the columns that are not loaded."""

    def __init__(
        self,
        session: Session,
        filters: LogFilters,
        left_out: Sequence[InstrumentedAttribute[Any]] = (),
    ) -> None:
        super().__init__(session)
        self._filters = filters
        self._left_out = left_out
        self._matching = select(LogRecord).where(*filters.conditions())

    def newest(
        self, limit: int, after: str | None, before: str | None, total: Total | None
    ) -> Page[LogRecord]:
        """A page of the records that match, newest first."""
        return self._page_of(
            LOGS,
            self._matching,
            query=asked(self._filters),
            limit=limit,
            after=after,
            before=before,
            total=total,
            fetch=self._through_slices,
        )

    def best(
        self, limit: int, after: str | None, before: str | None, total: Total | None
    ) -> Page[LogRecord]:
        """A page of the records that match, best first, of equally good ones the newest."""
        rank = func.ts_rank_cd(
            LogRecord.search_vector(LogRecord.__table__.c.body),
            text_query(self._filters.text or ""),
            _DIVIDED_BY_LENGTH,
        )
        ranked = _all_of(self._matching.add_columns(cast(rank, Double).label("rank")))
        records = self._records(ranked).add_columns(ranked.c.rank)
        page = self._page_of(
            Keyset("logs by rank", (ranked.c.rank, *(ranked.c[c.key] for c in LOGS.columns))),
            records,
            query=asked(self._filters),
            limit=limit,
            after=after,
            before=before,
            total=total,
            count=lambda kind: self._total(self._matching, kind),
            fetch=lambda turn: self._ranked_records(turn.of(records)),
        )
        rows = tuple(row.record for row in page)
        return Page(rows, page.next, page.previous, page.total, page.total_kind)

    def _ranked_records(self, statement: Select[Any]) -> list[_Ranked]:
        found: list[tuple[LogRecord, float]] = self._entities_with(statement)
        return [_Ranked(rank, r.timestamp, r.timestamp_ns, r.id, r) for r, rank in found]

    def _records(self, matches: Subquery) -> Select[Any]:
        """The records of a subquery."""
        record = aliased(LogRecord, matches)
        left_out = (getattr(record, column.key) for column in self._left_out)
        return select(record).options(*(defer(column, raiseload=True) for column in left_out))

    def _through_slices(self, turn: Turn) -> list[LogRecord]:
        backwards = not turn.descending
        begin = self._newest_moment() if turn.key is None else turn.key[0]
        found: list[LogRecord] = []
        unordered = turn.of(self._matching).order_by(None).limit(None)
        limits = (self._filters.start_time, self._filters.end_time)
        for start, end in _slices(begin, *limits, backwards=backwards):
            matches = _all_of(unordered.where(*within(LogRecord.timestamp, start, end)))
            key = [matches.c[column.key] for column in LOGS.columns]
            in_order = [column.asc() if backwards else column.desc() for column in key]
            found += self._entities(
                self._records(matches).order_by(*in_order).limit(turn.most - len(found))
            )
            if len(found) == turn.most:
                break
        return found

    def _newest_moment(self) -> datetime | None:
        """The time of the newest of the records until now; None where there are none."""
        filters = self._filters
        # A clock that runs ahead must not make all that is right part of one slice.
        newest: datetime | None = self._scalar(
            select(func.max(LogRecord.timestamp)).where(
                LogRecord.timestamp <= datetime.now(UTC),
                *equal(filters, LogRecord.service_name),
                *within(LogRecord.timestamp, filters.start_time, filters.end_time),
            )
        )
        return newest


def _slices(
    begin: datetime | None, start: datetime | None, end: datetime | None, *, backwards: bool
) -> Iterator[tuple[datetime | None, datetime | None]]:
    """Half-open ranges of time, from the beginning on, that cover all from the start to the end."""
    cuts: list[datetime | None] = []
    for width in _SLICES:
        if begin is None:
            break
        try:
            cut = begin + width if backwards else begin - width
        except OverflowError:
            break
        if (end is not None and cut >= end) if backwards else (start is not None and cut <= start):
            break
        cuts.append(cut)
    for one, other in pairwise([None, *cuts, None]):
        yield (one, other) if backwards else (other, one)


def _all_of(statement: Select[Any]) -> Subquery:
    """A subquery that is planned for all its rows, and not for the first few in some order.

    The quoted number is a constant to the planner, which an integer would not be: it would have to
    be converted first, and parallel plans were out of the question.
    """
    return statement.offset(literal_column("'0'")).subquery("matches")
