"""Log records: lists, lookups, full-text search, counts, and a tail."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Literal, Unpack
from uuid import UUID

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.orm import Session, defer

from observatory_storage import ids
from observatory_storage.arrow import ResultList, shape_of_model, shape_of_results
from observatory_storage.errors import ValidationError
from observatory_storage.models import LogRecord
from observatory_storage.read_only_guard import follows
from observatory_storage.repositories.logs.attribute_search import AttributeLogSearch
from observatory_storage.repositories.logs.filters import (
    LEVELS,
    LogFilters,
    LogKeywords,
    LogSearchKeywords,
)
from observatory_storage.repositories.logs.framed_records import DecidedSearch, FramedRecords
from observatory_storage.repositories.logs.log_search import NEWEST_LOGS, LogSearch, RankedLogSearch
from observatory_storage.repositories.logs.log_tail import poll_records
from observatory_storage.repositories.logs.results import LevelCount, LogStats
from observatory_storage.repositories.reading import pages, time_buckets, validation
from observatory_storage.repositories.reading.filter_fields import Conditions, within
from observatory_storage.repositories.reading.measured_methods import measured
from observatory_storage.repositories.reading.operators import OneOf
from observatory_storage.repositories.reading.partitioned_search import PartitionedSearch
from observatory_storage.repositories.reading.reader import Reader, StatementSearch
from observatory_storage.repositories.reading.result_streams import ResultStream, stream_of

__all__ = ["LogRepository"]

_LEFT_OUT: Final = (LogRecord.resource_attributes, LogRecord.scope_attributes, LogRecord.otlp)
_WITHOUT_PAYLOAD: Final = tuple(defer(column, raiseload=True) for column in _LEFT_OUT)
_SHAPES: Final = {
    True: shape_of_model(LogRecord),
    False: shape_of_model(LogRecord, tuple(column.key for column in _LEFT_OUT)),
}
_IN_ORDER: Final = select(LogRecord).order_by(
    LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id
)
_IS_OF_TRACE: Final = LogRecord.trace_id == bindparam("trace_id")
_OF_TRACE: Final = _IN_ORDER.where(_IS_OF_TRACE)
# Of an id of 64 bits also the records that an earlier version stored under another id.
_OF_SHORT_TRACE: Final = _IN_ORDER.where(
    or_(_IS_OF_TRACE, LogRecord.trace_id == bindparam("former_trace_id"))
)
_ORDERS: Final = ("time", "rank")


@measured("logs")
class LogRepository:
    """Queries for log records.

    Lists load the body and the attributes of each record. They load ``resource_attributes``,
    ``scope_attributes`` and ``otlp`` only with ``payload=True``. Reading a column that is not
    loaded raises `StorageError`.

    Filters are given as an object or as keywords: ``list(LogFilters(min_severity="WARN"))`` and
    ``list(min_severity="WARN")`` are the same. A method raises `ValidationError` for an invalid
    argument, for a damaged cursor and for the cursor of another query. Two queries are the same if
    their filters are equal; ``limit``, ``start_time`` and ``end_time`` may differ.
    """

    def __init__(self, session: Session) -> None:
        self._reader = Reader(session)

    def get(
        self,
        id: str | UUID,  # noqa: A002 - the column's name
        timestamp: datetime | None = None,
    ) -> LogRecord:
        """Get a record by its id, with all columns.

        Args:
            timestamp: the record's time, if you know it. No index has the id alone, so without the
                time the query reads all records until it finds the id.

        Raises:
            NotFound: there is no such record.
            ValidationError: the id is not a UUID, or the time has no time zone.
        """
        statement = select(LogRecord).where(LogRecord.id == ids.uuid_of(id, "id"))
        moment = validation.moment("timestamp", timestamp)
        if moment is not None:
            statement = statement.where(LogRecord.timestamp == moment)
        newest = statement.order_by(LogRecord.timestamp.desc()).limit(1)
        return self._reader.entity(newest, None, f"log record {id}")

    def list(
        self,
        filters: LogFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        payload: bool = False,
        total: pages.Total | None = None,
        **fields: Unpack[LogKeywords],
    ) -> pages.Page[LogRecord]:
        """List a page of the matching records, newest first.

        Args:
            total: "exact" or "estimated" also counts the rows of all pages, by one more statement.

        Raises:
            ValidationError: a cursor is damaged, or belongs to another query.
        """
        wanted = LogFilters.of(filters, fields)
        search, shape = self._search(self._reader, wanted, payload=payload), _SHAPES[bool(payload)]
        return pages.read_page(search, wanted.limit, after, before, total, shape=shape)

    def iterate(
        self,
        filters: LogFilters | None = None,
        batch_size: int = validation.BATCH_SIZE,
        *,
        payload: bool = False,
        **fields: Unpack[LogKeywords],
    ) -> ResultStream[LogRecord]:
        """Iterate over all matching records, newest first, with one batch at a time in memory.

        The filters' ``limit`` does not apply. `ResultStream.to_arrow` converts the records to
        Arrow, much faster than they are iterated over.
        """
        wanted = LogFilters.of(filters, fields)
        size = validation.limit("batch_size", batch_size)
        return stream_of(
            self._reader,
            _SHAPES[bool(payload)],
            lambda reader: self._search(reader, wanted, payload=payload),
            size,
            # Content in frames is looked into by Python.
            is_copied=lambda: not FramedRecords(self._reader.session, wanted).is_any,
        )

    def get_by_trace(
        self,
        trace_id: validation.TraceId,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> ResultList[LogRecord]:
        """Get the records of a trace in [start_time, end_time), with all columns, oldest first.

        A record may be older or newer than its trace, so the trace's times do not limit the search.
        Without bounds the query searches the index of every partition.
        """
        bounds = within(LogRecord.timestamp, *validation.times(start_time, end_time))
        key = validation.trace_key("trace_id", trace_id)
        former = ids.former_trace_uuid(key)
        if former is None:
            found = self._reader.entities(_OF_TRACE.where(*bounds), {"trace_id": key})
        else:
            both = {"trace_id": key, "former_trace_id": former}
            found = self._reader.entities(_OF_SHORT_TRACE.where(*bounds), both)
        return ResultList(found, _SHAPES[True])

    def search_text(
        self,
        text: str,
        filters: LogFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        order: Literal["time", "rank"] = "time",
        payload: bool = False,
        total: pages.Total | None = None,
        **fields: Unpack[LogSearchKeywords],
    ) -> pages.Page[LogRecord]:
        """Search the words of log records, and return a page of the records.

        Case is ignored and words are not stemmed. The search covers the first 100,000 characters of
        each body that is text. Bodies that are JSON, and the attributes of events together with the
        body, are searched up to 50,000 characters.

        Args:
            text: the words, in web search syntax: all words, ``"a phrase"``, ``or``, ``-not``, and
                ``begin*`` for all words with this prefix.
            filters: further conditions, above all a time range; their ``text`` must not be set.
            order: ``"time"``: newest first. ``"rank"``: highest rank first (PostgreSQL's
                ``ts_rank_cd``, which prefers bodies in which the words are close together and make
                up much of the text); records of equal rank are newest first. Each page by rank
                ranks all matching records, which takes some ten microseconds a record: pass a time
                range.
            total: "exact" or "estimated" also counts the rows of all pages, by one more statement.

        Raises:
            ValidationError: the text is blank or too long, or a cursor belongs to another query.
        """
        validation.choice("order", validation.required_text("order", order), _ORDERS)
        wanted = LogFilters.of(filters, fields)
        if wanted.text is not None:
            raise ValidationError("filters", wanted.text, "must not have a text of their own")
        wanted = replace(wanted, text=validation.required_text("text", text))
        shape = _SHAPES[bool(payload)]
        if order == "time":
            search = self._search(self._reader, wanted, payload=payload)
            return pages.read_page(search, wanted.limit, after, before, total, shape=shape)
        by_rank = RankedLogSearch(self._reader, wanted, () if payload else _LEFT_OUT)
        ranked = pages.read_page(by_rank, wanted.limit, after, before, total, shape=shape)
        page: Any = ranked
        return replace(page, rows=tuple(each.record for each in ranked))

    def count_by_level(
        self,
        filters: LogFilters | None = None,
        *,
        bucket_size_secs: time_buckets.BucketSize | None = None,
        time_zone: str | None = None,
        **fields: Unpack[LogKeywords],
    ) -> ResultList[LevelCount]:
        """Count the matching records of each level, from TRACE up.

        Levels without records are absent. A record without a severity number has the level that its
        ``severity_text`` names. If the text names no level, the record counts as ``UNSPECIFIED``.
        This level comes first.

        Args:
            bucket_size_secs: also count by buckets of this width, in seconds or as a timedelta; or
                by ``"day"``, ``"week"`` (from Monday), ``"month"``, ``"quarter"`` or ``"year"``.
                Buckets of one width are aligned to Monday, 1970-01-05 UTC.
            time_zone: the time zone in which days begin, such as "Asia/Tokyo", in upper or lower
                case; UTC by default. With a time zone, buckets must be whole days or a unit of the
                calendar. A day on which the clocks change has 23 or 25 hours.

        Raises:
            ValidationError: the bucket width or the time zone is invalid.
        """
        wanted = LogFilters.of(filters, fields)
        conditions = FramedRecords(self._reader.session, wanted).resolved()
        buckets = time_buckets.buckets_or_whole(bucket_size_secs, time_zone)
        bucket = buckets.column(LogRecord.timestamp, wanted.start_time, wanted.end_time)
        number = LogRecord.severity().label("number")
        by_number = (
            select(bucket, number, func.count().label("records"))
            .where(*conditions)
            .group_by("bucket", "number")
            .order_by("bucket", number.nulls_first())
        )
        counts: dict[tuple[datetime | None, str], int] = {}
        for row in self._reader.rows(by_number):
            key = buckets.read(row.bucket), _level_of(row.number)
            counts[key] = counts.get(key, 0) + row.records
        found = (
            LevelCount(level=level, count=count, timestamp=start)
            for (start, level), count in counts.items()
        )
        return ResultList(found, shape_of_results(LevelCount))

    def get_stats(
        self, filters: LogFilters | None = None, **fields: Unpack[LogKeywords]
    ) -> LogStats:
        """Get totals over the matching records. The filters' ``limit`` does not apply."""
        wanted = LogFilters.of(filters, fields)
        row = self._reader.row(
            select(
                func.count().label("log_count"),
                func.count().filter(LogRecord.severity() >= LEVELS["ERROR"]).label("error_count"),
                func.count(LogRecord.service_name.distinct()).label("service_count"),
                func.count(LogRecord.trace_id.distinct()).label("trace_count"),
                func.min(LogRecord.timestamp).label("first_timestamp"),
                func.max(LogRecord.timestamp).label("last_timestamp"),
            ).where(*FramedRecords(self._reader.session, wanted).resolved())
        )
        return LogStats(**row._mapping)

    @follows
    def tail(
        self,
        cursor: str | None = None,
        filters: LogFilters | None = None,
        *,
        payload: bool = False,
        **fields: Unpack[LogKeywords],
    ) -> pages.Page[LogRecord]:
        """Poll the log: return the records that arrived since the poll that returned the cursor.

        Without a cursor, it returns the newest records, the oldest of them first. The page's
        ``next`` is always set: pass it to the next poll, and run each poll in a new unit of work.
        Records are returned in the order in which they arrived, whatever their timestamps are. No
        record is skipped or returned twice. A record is returned once all transactions that began
        to write before its own have ended, so a long writing transaction delays the tail.

        Args:
            filters: selects the records. Their ``limit`` is the maximum number of records in one
                poll.

        Raises:
            ValidationError: the cursor is damaged, or belongs to another query or another server.
        """
        wanted = LogFilters.of(filters, fields)
        options = () if payload else _WITHOUT_PAYLOAD
        page = poll_records(self._reader, cursor, wanted, options)
        return replace(page, shape=_SHAPES[bool(payload)])

    def _search(
        self, reader: Reader, filters: LogFilters, *, payload: bool
    ) -> pages.Search[LogRecord]:
        framed = FramedRecords(reader.session, filters)
        if not framed.is_any:
            return self._search_by(reader, filters, None, payload=payload)
        search = self._search_by(reader, filters, framed.conditions(), payload=payload)
        return DecidedSearch(reader, search, framed)

    def _search_by(
        self, reader: Reader, filters: LogFilters, conditions: Conditions | None, *, payload: bool
    ) -> pages.Search[LogRecord]:
        """The list of the records that meet the conditions; None are those of the filters."""
        left_out = () if payload else _LEFT_OUT
        if filters.text is not None:
            return LogSearch(reader, filters, left_out, conditions)
        options = () if payload else _WITHOUT_PAYLOAD
        met = filters.conditions() if conditions is None else conditions
        statement = select(LogRecord).where(*met).options(*options)
        if isinstance(filters.trace_id, (UUID, OneOf)):  # an index has their few records
            return StatementSearch(reader, NEWEST_LOGS, statement, filters.query())
        bounds = filters.start_time, filters.end_time
        in_order = PartitionedSearch(reader, NEWEST_LOGS, statement, filters.query(), bounds)
        if not filters.has_indexed_attribute():
            return in_order
        in_slices = LogSearch(reader, filters, left_out, conditions)
        return AttributeLogSearch(reader, filters, in_order, in_slices)


def _level_of(number: int | None) -> str:
    """The level name of a severity number."""
    found = "UNSPECIFIED"
    for name, least in LEVELS.items():
        if number is not None and number >= least:
            found = name
    return found
