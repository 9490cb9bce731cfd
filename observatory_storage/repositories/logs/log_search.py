"""Full-text search of log records, ordered by time or by rank.

For a search in order of time, the planner would read the records newest first and look for the
words in each body, because it does not know how rare a word is. This plan is fast for a frequent
word and takes seconds for a rare one. Therefore the search divides the time range into slices, each
wider than the previous one. The full-text index finds all matches of a slice, and the matches are
sorted. The search ends when the page is full. Frequent words fill the page in the first slices. For
rare words, even the widest slice has few matches, so fewer slices are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Double,
    Select,
    Subquery,
    bindparam,
    case,
    cast,
    func,
    literal,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased, defer

from observatory_storage.llm.content_search import content_of_log, content_vector
from observatory_storage.models import LogRecord
from observatory_storage.repositories.logs.filters import LogFilters
from observatory_storage.repositories.logs.framed_records import (
    FramedRecords,
    LogKey,
    is_one_of,
)
from observatory_storage.repositories.reading.filter_fields import (
    Conditions,
    conditions_on,
    rules_of,
    unbound,
    within,
)
from observatory_storage.repositories.reading.given_records import GIVEN_RECORDS
from observatory_storage.repositories.reading.indexed_slices import Piece, in_pieces, pieces_of
from observatory_storage.repositories.reading.pages import Keyset, Seek, SeekShape, Total
from observatory_storage.repositories.reading.partition_slices import cuts_of, first_found
from observatory_storage.repositories.reading.reader import Reader, fenced
from observatory_storage.repositories.reading.text_search import TextSearch

__all__ = ["NEWEST_LOGS", "LogSearch", "RankedLogSearch", "RankedRecord"]

NEWEST_LOGS: Final = Keyset("logs", (LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id))

# The ends of the slices, as distances from the beginning of the page. One more slice has the rest.
_SLICES: Final = (
    timedelta(minutes=10),
    timedelta(hours=2),
    timedelta(days=1),
    timedelta(days=12),
)
_SLICE_START: Final = bindparam("slice_start", type_=LogRecord.timestamp.type)
_SLICE_END: Final = bindparam("slice_end", type_=LogRecord.timestamp.type)
# ts_rank_cd's normalization 1 divides the rank by 1 + the logarithm of the length, so that shorter
# bodies rank higher.
_DIVIDED_BY_LENGTH: Final = 1


class RankedRecord(NamedTuple):
    """A record with its sort key."""

    rank: float
    timestamp: datetime
    timestamp_ns: int
    id: UUID
    record: LogRecord


class LogSearch:
    """The records that match filters with a text, newest first: a `pages.Search`.

    Args:
        left_out: columns that are not loaded.
        conditions: those on the records, if they are not the filters' own.
    """

    keyset: Keyset = NEWEST_LOGS

    def __init__(
        self,
        reader: Reader,
        filters: LogFilters,
        left_out: Sequence[InstrumentedAttribute[Any]],
        conditions: Conditions | None = None,
    ) -> None:
        self._reader = reader
        self._filters = filters
        self.query: Mapping[str, Any] = filters.query()
        self._left_out = left_out
        self._parameters = filters.parameters()
        names = filters.kept_names() if conditions is None else None
        if names is None:
            self._matching = select(LogRecord).where(*(conditions or filters.conditions()))
        else:
            self._matching = _matching(names)
        self._make = _of_slice.__wrapped__ if names is None else _of_slice

    def count(self, kind: Total) -> int:
        return self._reader.count(self._matching, kind, self._parameters)

    def rows(self, seek: Seek) -> list[LogRecord]:
        """The records of a page, found in slices of time."""
        begin = self._newest_moment() if seek.key is None else seek.key[0]
        return self.in_slices(seek, begin, self._filters.start_time, self._filters.end_time)

    def in_slices(
        self, seek: Seek, begin: datetime | None, first: datetime | None, last: datetime | None
    ) -> list[LogRecord]:
        """The records of a page in [first, last), found in slices from a time on."""
        found: list[LogRecord] = []
        backwards = not seek.descending
        edges = [None, *_cuts(begin, first, last, backwards=backwards), None]
        at = 0
        while at < len(edges) - 1:
            # A word that the first slice does not have is rare: the next ones are taken together.
            to = min(at + (2 if at and not found else 1), len(edges) - 1)
            low, high = (edges[at], edges[to]) if backwards else (edges[to], edges[at])
            at = to
            start, end = low or first, high or last
            make, pieces = _of_slice.__wrapped__, pieces_of(self._reader, LogRecord, start, end)
            if len(pieces) == 1:
                make = self._make
                pieces = ((start and _SLICE_START, end and _SLICE_END),)
            page = make(
                self._matching,
                seek.shape,
                pieces,
                self._left_out,
                is_sharded=self._reader.is_sharded,
            )
            values = {**self._parameters, **seek.parameters}
            values |= {_SLICE_START.key: start, _SLICE_END.key: end}
            values["row_limit"] = seek.row_limit - len(found)
            found += self._reader.entities(page, values)
            if len(found) == seek.row_limit:
                break
        return found

    def _newest_moment(self) -> datetime | None:
        """The time of the newest record that is not in the future; None if there is none."""
        filters = self._filters
        of_service = LogFilters(service_name=filters.service_name).conditions()
        # Otherwise one record from a clock that runs ahead would put all others into one slice.
        newest = select(func.max(LogRecord.timestamp)).where(
            LogRecord.timestamp <= datetime.now(UTC),
            *of_service,
            *within(LogRecord.timestamp, filters.start_time, filters.end_time),
        )

        def find(low: datetime | None, high: datetime | None) -> datetime | None:
            found: datetime | None = self._reader.scalar(
                newest.where(*within(LogRecord.timestamp, low, high))
            )
            return found

        bounds = filters.start_time, filters.end_time
        cuts = cuts_of(self._reader, LogRecord, *bounds, descending=True)
        return first_found(cuts, find, descending=True)


class RankedLogSearch:
    """The records that match, highest rank first. Records of equal rank are newest first."""

    def __init__(
        self, reader: Reader, filters: LogFilters, left_out: Sequence[InstrumentedAttribute[Any]]
    ) -> None:
        self._reader = reader
        self.query: Mapping[str, Any] = filters.query()
        query = TextSearch(filters.text or "").query()
        rank = _rank(LogRecord, LogRecord.__table__.c.body, query)
        conditions = filters.conditions()
        framed = FramedRecords(reader.session, filters)
        if framed.is_any:
            found = framed.matching(_rank(GIVEN_RECORDS, GIVEN_RECORDS.body, query))
            by_frames = dict(found)
            conditions = filters.conditions_with(is_one_of(list(by_frames)))
            rank = func.coalesce(_rank_of(by_frames), rank)
        self._matching = select(LogRecord).where(*conditions)
        pieces = pieces_of(reader, LogRecord, filters.start_time, filters.end_time)
        matching = self._matching.add_columns(cast(rank, Double).label("rank"))
        ranked = _planned_for_all(matching, pieces, is_sharded=reader.is_sharded)
        self._records = _records_of(ranked, left_out).add_columns(ranked.c.rank)
        key = (ranked.c.rank, *(ranked.c[column.key] for column in NEWEST_LOGS.columns))
        self.keyset = Keyset("logs by rank", key)

    def count(self, kind: Total) -> int:
        return self._reader.count(self._matching, kind)

    def rows(self, seek: Seek) -> list[RankedRecord]:
        found: list[tuple[LogRecord, float]] = self._reader.entities_with(
            seek.of(self._records), seek.parameters
        )
        return [RankedRecord(rank, r.timestamp, r.timestamp_ns, r.id, r) for r, rank in found]


def _rank(record: Any, body: Any, query: ColumnElement[Any]) -> ColumnElement[float]:
    """The rank of a record, by its body or by what it has to search beside it."""
    content = case((record.is_structured(), content_vector(content_of_log(record))))
    vectors = (LogRecord.search_vector(body), content)
    ranks = (func.ts_rank_cd(one, query, _DIVIDED_BY_LENGTH) for one in vectors)
    return func.coalesce(func.greatest(*ranks), 0)


def _rank_of(ranks: Mapping[LogKey, float]) -> ColumnElement[float | None]:
    """The rank of a record that has been ranked; NULL for the others."""
    times, ids = ([key[at] for key in ranks] for at in (0, 1))
    given = func.unnest(
        literal(times, ARRAY(LogRecord.timestamp.type)),
        literal(ids, ARRAY(LogRecord.id.type)),
        literal(list(ranks.values()), ARRAY(Double)),
    )
    ranked = given.table_valued("timestamp", "id", "rank").render_derived(name="ranked")
    is_same = (ranked.c.timestamp == LogRecord.timestamp, ranked.c.id == LogRecord.id)
    return select(cast(ranked.c.rank, Double)).where(*is_same).scalar_subquery()


@lru_cache(maxsize=64)
def _matching(names: frozenset[str]) -> Select[LogRecord]:
    """The records that match filters with parameters of these names, without their values."""
    kind: Any = LogFilters
    return select(LogRecord).where(*conditions_on(LogRecord, rules_of(kind), unbound(names)))


@lru_cache(maxsize=256)
def _of_slice(
    matching: Select[LogRecord],
    shape: SeekShape,
    pieces: Sequence[Piece],
    left_out: Sequence[InstrumentedAttribute[Any]],
    *,
    is_sharded: bool = False,
) -> Select[LogRecord]:
    """The records of a page that lie in the pieces."""
    unordered = NEWEST_LOGS.seek(matching, shape).order_by(None).limit(None)
    matches = _planned_for_all(unordered, pieces, is_sharded=is_sharded)
    keyset = Keyset(NEWEST_LOGS.list_name, tuple(matches.c[c.key] for c in NEWEST_LOGS.columns))
    records = _records_of(matches, left_out)
    return keyset.seek(records, SeekShape(shape.descending, from_key=False))


def _records_of(matches: Subquery, left_out: Sequence[InstrumentedAttribute[Any]]) -> Select[Any]:
    """The records of a subquery, without the columns that are not loaded."""
    record = aliased(LogRecord, matches)
    columns = (getattr(record, column.key) for column in left_out)
    return select(record).options(*(defer(column, raiseload=True) for column in columns))


def _cuts(
    begin: datetime | None, start: datetime | None, end: datetime | None, *, backwards: bool
) -> list[datetime]:
    """The moments that divide [start, end) into slices, in the order of the search."""
    cuts: list[datetime] = []
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
    return cuts


def _planned_for_all(
    statement: Select[Any], pieces: Sequence[Piece], *, is_sharded: bool
) -> Subquery:
    """The rows of the pieces as a subquery that is planned for all, not for the first few."""
    found = in_pieces(statement, LogRecord.timestamp, pieces)
    matches: Subquery = fenced(found, is_sharded=is_sharded).subquery("matches")
    return matches
