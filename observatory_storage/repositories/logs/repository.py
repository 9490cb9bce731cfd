"""Log records: lists, lookups, full-text search, counts, and following along."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import defer

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.models import LogRecord
from observatory_storage.repositories.logs.filters import LEVELS, LogFilters
from observatory_storage.repositories.logs.log_search import LOGS, LogSearch
from observatory_storage.repositories.logs.tail import Tail
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.conditions import asked, within
from observatory_storage.repositories.reading.counting import Total
from observatory_storage.repositories.reading.grouping import bucket_column
from observatory_storage.repositories.reading.pages import Page
from observatory_storage.repositories.reading.reader import Repository
from observatory_storage.repositories.reading.results import LevelCount, LogStats

__all__ = ["LogRepository"]

_LEFT_OUT: Final = (LogRecord.resource_attributes, LogRecord.scope_attributes, LogRecord.otlp)
_PAYLOAD: Final = tuple(defer(column, raiseload=True) for column in _LEFT_OUT)
_OF_TRACE: Final = (
    select(LogRecord)
    .where(LogRecord.trace_id == bindparam("trace_id"))
    .order_by(LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id)
)
_ORDERS: Final = ("time", "rank")
_LEVEL_NAMES: Final = dict(enumerate(LEVELS))
_LEVEL_WIDTH: Final = 4  # each level has four severity numbers


class LogRepository(Repository):
    """Questions about log records.

    Lists load a record's body and its attributes, but not the JSON columns that records of one
    source share (resource and scope attributes) nor ``otlp``, unless ``payload`` asks for them:
    without it, reading one of these raises.
    """

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
        return self._entity(newest, None, f"log record {id}")

    def list(
        self,
        filters: LogFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        payload: bool = False,
        total: Total | None = None,
    ) -> Page[LogRecord]:
        """A page of the records that match, newest first.

        Args:
            total: "exact" or "estimated": say how many there are in all, by one more statement.

        Raises:
            ValidationError: a cursor is damaged or another query's.
        """
        filters = validation.filters(filters, LogFilters)
        return self._page(filters, filters.limit, after, before, payload=payload, total=total)

    def iterate(
        self, filters: LogFilters | None = None, batch_size: int = 1000, *, payload: bool = False
    ) -> Iterator[LogRecord]:
        """All the records that match, newest first, with one batch at a time in memory.

        The filters' ``limit`` does not apply.
        """
        filters = validation.filters(filters, LogFilters)
        size = validation.limit(batch_size, "batch_size")
        return self._walk(lambda after: self._page(filters, size, after, None, payload=payload))

    def get_by_trace(
        self,
        trace_id: str | UUID,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> builtins.list[LogRecord]:
        """All records of a trace in [start_time, end_time), whole, oldest first.

        Records may be of a time before or after the trace's own, so that nothing but these bounds
        limits the search: without them the index of every partition is looked into.
        """
        start, end = validation.times(start_time, end_time)
        statement = _OF_TRACE.where(*within(LogRecord.timestamp, start, end))
        return self._entities(statement, {"trace_id": ids.trace_uuid(trace_id)})

    def search_text(
        self,
        text: str,
        filters: LogFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        order: Literal["time", "rank"] = "time",
        payload: bool = False,
        total: Total | None = None,
    ) -> Page[LogRecord]:
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
        filters = validation.filters(filters, LogFilters)
        if filters.text is not None:
            raise ValidationError("filters", filters.text, "must not have a text of their own")
        words = replace(filters, text=validation.required_text("text", text))
        if order == "time":
            return self._page(words, words.limit, after, before, payload=payload, total=total)
        search = LogSearch(self._session, words, () if payload else _LEFT_OUT)
        return search.best(words.limit, after, before, total)

    def count_by_level(
        self,
        filters: LogFilters | None = None,
        *,
        bucket_size_secs: float | None = None,
        time_zone: str | None = None,
    ) -> builtins.list[LevelCount]:
        """How many records that match each level has, from TRACE up; levels without are absent.

        Records without a severity number come first, as ``UNSPECIFIED``.

        Args:
            bucket_size_secs: count by buckets of time too, counted from Monday, 1970-01-05 UTC.
            time_zone: by whose calendar days begin, as "Asia/Tokyo"; buckets are then of whole
                days, and of 23 or 25 hours where clocks are set.

        Raises:
            ValidationError: a bucket or a time zone is not one.
        """
        filters = validation.filters(filters, LogFilters)
        bucket = bucket_column(LogRecord.timestamp, bucket_size_secs, time_zone)
        by_number = (
            select(bucket, LogRecord.severity_number, func.count())
            .where(*filters.conditions())
            .group_by("bucket", LogRecord.severity_number)
            .order_by("bucket", LogRecord.severity_number.nulls_first())
        )
        counts: dict[tuple[datetime | None, str], int] = {}
        for start, number, count in self._rows(by_number):
            level = "UNSPECIFIED"
            if number is not None:
                level = _LEVEL_NAMES.get((number - 1) // _LEVEL_WIDTH, level)
            counts[start, level] = counts.get((start, level), 0) + count
        return [LevelCount(level, count, start) for (start, level), count in counts.items()]

    def get_stats(self, filters: LogFilters | None = None) -> LogStats:
        """Totals over the records that match; the filters' ``limit`` does not apply."""
        filters = validation.filters(filters, LogFilters)
        row = self._row(
            select(
                func.count(),
                func.count().filter(LogRecord.severity_number >= LEVELS["ERROR"]),
                func.count(LogRecord.service_name.distinct()),
                func.count(LogRecord.trace_id.distinct()),
                func.min(LogRecord.timestamp),
                func.max(LogRecord.timestamp),
            ).where(*filters.conditions())
        )
        return LogStats(*row)

    def tail(
        self, cursor: str | None = None, filters: LogFilters | None = None, *, payload: bool = False
    ) -> Page[LogRecord]:
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
        filters = validation.filters(filters, LogFilters)
        return Tail(self._session).poll(cursor, filters, () if payload else _PAYLOAD)

    def _page(
        self,
        filters: LogFilters,
        limit: int,
        after: str | None,
        before: str | None,
        *,
        payload: bool,
        total: Total | None = None,
    ) -> Page[LogRecord]:
        if filters.text is not None:
            search = LogSearch(self._session, filters, () if payload else _LEFT_OUT)
            return search.newest(limit, after, before, total)
        options = () if payload else _PAYLOAD
        return self._page_of(
            LOGS,
            select(LogRecord).where(*filters.conditions()).options(*options),
            query=asked(filters),
            limit=limit,
            after=after,
            before=before,
            total=total,
        )
