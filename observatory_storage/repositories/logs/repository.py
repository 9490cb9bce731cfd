"""Log records: lists, lookups, full-text search, counts, and following along."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final, Literal, Unpack
from uuid import UUID

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session, defer

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.models import LogRecord
from observatory_storage.repositories.logs.filters import (
    LEVELS,
    LogFilters,
    LogKeywords,
    LogSearchKeywords,
)
from observatory_storage.repositories.logs.log_search import LOGS, LogSearch, RankedLogSearch
from observatory_storage.repositories.logs.results import LevelCount, LogStats
from observatory_storage.repositories.logs.tail import Tail
from observatory_storage.repositories.reading import pages, time_buckets, validation
from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.reading.reader import Reader, StatementSearch

__all__ = ["LogRepository"]

_LEFT_OUT: Final = (LogRecord.resource_attributes, LogRecord.scope_attributes, LogRecord.otlp)
_WITHOUT_PAYLOAD: Final = tuple(defer(column, raiseload=True) for column in _LEFT_OUT)
_OF_TRACE: Final = (
    select(LogRecord)
    .where(LogRecord.trace_id == bindparam("trace_id"))
    .order_by(LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id)
)
_ORDERS: Final = ("time", "rank")


class LogRepository:
    """Questions about log records.

    Lists load a record's body and its attributes, but not the JSON columns that records of one
    source share (resource and scope attributes) nor ``otlp``, unless ``payload`` asks for them:
    without it, reading one of these raises.

    Filters are given as an object or as keywords: ``list(LogFilters(min_severity="WARN"))`` and
    ``list(min_severity="WARN")`` are the same. A method raises `ValidationError` for an argument
    that it does not understand, for a damaged cursor and for the cursor of another query. A cursor
    goes with a query's filters but for ``limit``, ``start_time`` and ``end_time``.
    """

    def __init__(self, session: Session) -> None:
        self._reader = Reader(session)

    def get(
        self,
        id: str | UUID,  # noqa: A002 - the column's name
        timestamp: datetime | None = None,
    ) -> LogRecord:
        """The record of an id, whole.

        Args:
            timestamp: when the record is known to be of. No index is by the id alone: without
                the time all records are read until it is found.

        Raises:
            NotFound: there is none.
            ValidationError: the id is no UUID, or the time has no zone.
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
        """A page of the records that match, newest first.

        Args:
            total: "exact" or "estimated": say how many there are in all, by one more statement.

        Raises:
            ValidationError: a cursor is damaged or another query's.
        """
        wanted = LogFilters.of(filters, fields)
        search = self._search(wanted, payload=payload)
        return pages.read_page(search, wanted.limit, after, before, total)

    def iterate(
        self,
        filters: LogFilters | None = None,
        batch_size: int = validation.BATCH_SIZE,
        *,
        payload: bool = False,
        **fields: Unpack[LogKeywords],
    ) -> Iterator[LogRecord]:
        """All the records that match, newest first, with one batch at a time in memory.

        The filters' ``limit`` does not apply.
        """
        wanted = LogFilters.of(filters, fields)
        size = validation.limit("batch_size", batch_size)
        return pages.read_all(self._search(wanted, payload=payload), size)

    def get_by_trace(
        self,
        trace_id: validation.TraceId,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> builtins.list[LogRecord]:
        """All records of a trace in [start_time, end_time), whole, oldest first.

        Records may be of a time before or after the trace's own, so that nothing but these bounds
        limits the search: without them the index of every partition is looked into.
        """
        bounds = within(LogRecord.timestamp, *validation.times(start_time, end_time))
        key = validation.trace_key("trace_id", trace_id)
        return self._reader.entities(_OF_TRACE.where(*bounds), {"trace_id": key})

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
        """A page of the records whose body has the words.

        Words are taken as written, without regard to case; of a body the first 100,000
        characters are searched. What is not text (``body_json``) is not.

        Args:
            text: as in a web search: all the words, ``"a phrase"``, ``or``, ``-not``, and
                ``begin*`` for words that begin so.
            filters: what else must be met, the time above all; without a text of their own.
            order: ``"time"`` for the newest first; ``"rank"`` for those first in which the words
                stand closest together and make up most of the body (PostgreSQL's
                ``ts_rank_cd``), and of equal ones the newest. Every page by rank ranks all
                records that match, some ten microseconds each: bound the time.
            total: "exact" or "estimated": say how many there are in all, by one more statement.

        Raises:
            ValidationError: the text is blank or too long, or a cursor is another query's.
        """
        validation.choice("order", validation.required_text("order", order), _ORDERS)
        wanted = LogFilters.of(filters, fields)
        if wanted.text is not None:
            raise ValidationError("filters", wanted.text, "must not have a text of their own")
        wanted = replace(wanted, text=validation.required_text("text", text))
        if order == "time":
            search = self._search(wanted, payload=payload)
            return pages.read_page(search, wanted.limit, after, before, total)
        by_rank = RankedLogSearch(self._reader, wanted, () if payload else _LEFT_OUT)
        page = pages.read_page(by_rank, wanted.limit, after, before, total)
        records = tuple(ranked.record for ranked in page)
        return pages.Page(records, page.next, page.previous, page.total, page.total_kind)

    def count_by_level(
        self,
        filters: LogFilters | None = None,
        *,
        bucket_size_secs: time_buckets.BucketSize | None = None,
        time_zone: str | None = None,
        **fields: Unpack[LogKeywords],
    ) -> builtins.list[LevelCount]:
        """How many records that match each level has, from TRACE up; levels without are absent.

        Records without a severity number come first, as ``UNSPECIFIED``.

        Args:
            bucket_size_secs: count by buckets of time too, counted from Monday, 1970-01-05 UTC.
            time_zone: the name of the time zone whose days the buckets follow, as "Asia/Tokyo".
                Buckets are then of whole days, which have 23 or 25 hours when clocks are set.

        Raises:
            ValidationError: a bucket or a time zone is not one.
        """
        wanted = LogFilters.of(filters, fields)
        bucket = time_buckets.bucket_column(LogRecord.timestamp, bucket_size_secs, time_zone)
        number = LogRecord.severity_number
        by_number = (
            select(bucket, number, func.count().label("records"))
            .where(*wanted.conditions())
            .group_by("bucket", number)
            .order_by("bucket", number.nulls_first())
        )
        counts: dict[tuple[datetime | None, str], int] = {}
        for row in self._reader.rows(by_number):
            key = row.bucket, _level_of(row.severity_number)
            counts[key] = counts.get(key, 0) + row.records
        return [
            LevelCount(level=level, count=count, timestamp=start)
            for (start, level), count in counts.items()
        ]

    def get_stats(
        self, filters: LogFilters | None = None, **fields: Unpack[LogKeywords]
    ) -> LogStats:
        """Totals over the records that match; the filters' ``limit`` does not apply."""
        wanted = LogFilters.of(filters, fields)
        row = self._reader.row(
            select(
                func.count().label("log_count"),
                func.count()
                .filter(LogRecord.severity_number >= LEVELS["ERROR"])
                .label("error_count"),
                func.count(LogRecord.service_name.distinct()).label("service_count"),
                func.count(LogRecord.trace_id.distinct()).label("trace_count"),
                func.min(LogRecord.timestamp).label("first_timestamp"),
                func.max(LogRecord.timestamp).label("last_timestamp"),
            ).where(*wanted.conditions())
        )
        return LogStats(**row._mapping)

    def tail(
        self,
        cursor: str | None = None,
        filters: LogFilters | None = None,
        *,
        payload: bool = False,
        **fields: Unpack[LogKeywords],
    ) -> pages.Page[LogRecord]:
        """One poll of the log: what arrived since the poll that gave the cursor.

        Without a cursor, the newest records, oldest of them first. The page's ``next`` is always
        there, for the next poll, which should be in a unit of work of its own. Records come in
        the order in which they arrived, however old their timestamps are; none is skipped and
        none comes twice. A record is given when all transactions that began writing before its
        own have ended, so a long one that writes holds the tail up.

        Args:
            filters: which records; their ``limit`` is the most that one poll gives.

        Raises:
            ValidationError: the cursor is damaged, another query's or another server's.
        """
        wanted = LogFilters.of(filters, fields)
        return Tail(self._reader).poll(cursor, wanted, () if payload else _WITHOUT_PAYLOAD)

    def _search(self, filters: LogFilters, *, payload: bool) -> pages.Search[LogRecord]:
        if filters.text is not None:
            return LogSearch(self._reader, filters, () if payload else _LEFT_OUT)
        options = () if payload else _WITHOUT_PAYLOAD
        statement = select(LogRecord).where(*filters.conditions()).options(*options)
        return StatementSearch(self._reader, LOGS, statement, filters.query())


def _level_of(number: int | None) -> str:
    """The name of the level that a severity number belongs to."""
    found = "UNSPECIFIED"
    for name, least in LEVELS.items():
        if number is not None and number >= least:
            found = name
    return found
