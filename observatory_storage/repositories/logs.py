"""Log records: lists, lookups, full-text search, counts, and following along."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import DateTime, Select, func, literal, select
from sqlalchemy.orm import defer

from observatory_storage import ids
from observatory_storage.errors import ValidationError
from observatory_storage.models import LogRecord
from observatory_storage.repositories import arguments
from observatory_storage.repositories.base import Repository
from observatory_storage.repositories.conditions import asked
from observatory_storage.repositories.filters import LEVELS, LogFilters
from observatory_storage.repositories.paging import Keyset, Page
from observatory_storage.repositories.results import LevelCount, LogStats
from observatory_storage.repositories.tail import Tail
from observatory_storage.repositories.time_series import bucket_start

__all__ = ["LogRepository"]

_LOGS: Final = Keyset("logs", (LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id))
_PAYLOAD: Final = tuple(
    defer(column, raiseload=True)
    for column in (
        LogRecord.resource_attributes,
        LogRecord.scope_attributes,
        LogRecord.otlp,
    )
)
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
            timestamp: when the record is known to be of. Without it every partition is searched.

        Raises:
            NotFound: there is none.
            ValidationError: the id is no UUID, or the time has no zone.
        """
        statement = select(LogRecord).where(LogRecord.id == ids.uuid_of(id, "id"))
        moment = arguments.moment("timestamp", timestamp)
        if moment is not None:
            statement = statement.where(LogRecord.timestamp == moment)
        return self._entity(statement.order_by(LogRecord.timestamp.desc()), f"log record {id}")

    def list(
        self,
        filters: LogFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        payload: bool = False,
    ) -> Page[LogRecord]:
        """A page of the records that match, newest first.

        Raises:
            ValidationError: a cursor is damaged or another query's.
        """
        filters = arguments.filters(filters, LogFilters)
        return self._page(filters, filters.limit, after, before, payload=payload)

    def iterate(
        self, filters: LogFilters | None = None, batch_size: int = 1000, *, payload: bool = False
    ) -> Iterator[LogRecord]:
        """All the records that match, newest first, with one batch at a time in memory.

        The filters' ``limit`` does not apply.
        """
        filters = arguments.filters(filters, LogFilters)
        size = arguments.limit(batch_size, "batch_size")
        return self._walk(lambda after: self._page(filters, size, after, None, payload=payload))

    def get_by_trace(self, trace_id: str | UUID) -> builtins.list[LogRecord]:
        """All records of a trace, whole, oldest first."""
        return self._entities(
            select(LogRecord)
            .where(LogRecord.trace_id == ids.trace_uuid(trace_id))
            .order_by(LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id)
        )

    def search_text(
        self,
        text: str,
        filters: LogFilters | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        payload: bool = False,
    ) -> Page[LogRecord]:
        """A page of the records whose body has the words, newest first.

        Args:
            text: as in a web search: all the words, ``"a phrase"``, ``or``, ``-not``.
            filters: what else must be met, the time above all; without a text of their own.

        Raises:
            ValidationError: the text is blank or too long, or a cursor is another query's.
        """
        filters = arguments.filters(filters, LogFilters)
        if filters.text is not None:
            raise ValidationError("filters", filters.text, "must not have a text of their own")
        words = replace(filters, text=arguments.required_text("text", text))
        return self._page(words, words.limit, after, before, payload=payload)

    def count_by_level(
        self, filters: LogFilters | None = None, *, bucket_size_secs: float | None = None
    ) -> builtins.list[LevelCount]:
        """How many records that match each level has, from TRACE up; levels without are absent.

        Records without a severity number come first, as ``UNSPECIFIED``.

        Args:
            bucket_size_secs: count by buckets of time too, counted from 1970-01-01 UTC.
        """
        filters = arguments.filters(filters, LogFilters)
        if bucket_size_secs is None:
            bucket = literal(None, DateTime(timezone=True)).label("bucket")
        else:
            width = arguments.bucket("bucket_size_secs", bucket_size_secs)
            bucket = bucket_start(width, LogRecord.timestamp).label("bucket")
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
        filters = arguments.filters(filters, LogFilters)
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
        filters = arguments.filters(filters, LogFilters)
        return Tail(self._session).poll(cursor, filters, () if payload else _PAYLOAD)

    def _page(
        self,
        filters: LogFilters,
        limit: int,
        after: str | None,
        before: str | None,
        *,
        payload: bool,
    ) -> Page[LogRecord]:
        statement: Select[LogRecord] = select(LogRecord).where(*filters.conditions())
        if not payload:
            statement = statement.options(*_PAYLOAD)
        return _LOGS.page(
            statement,
            self._entities,
            query=asked(filters),
            limit=limit,
            after=after,
            before=before,
        )
