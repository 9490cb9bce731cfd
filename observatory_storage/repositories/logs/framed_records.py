"""Decides whether log records match whose prompts, completions or bodies stand in log frames.

PostgreSQL cannot look into a frame. So a statement also finds the records with frames that may
match, and their whole values are given to PostgreSQL afterwards, which applies the same expressions
as to values in rows. The index of words of frames says which records may match at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage import jsonb
from observatory_storage.errors import translated
from observatory_storage.models import LogRecord
from observatory_storage.payloads import fill_whole, log_damage
from observatory_storage.payloads.word_blocks import HourKey
from observatory_storage.repositories.logs.filters import LogFilters
from observatory_storage.repositories.reading.filter_fields import Conditions
from observatory_storage.repositories.reading.framed_words import FramedWords
from observatory_storage.repositories.reading.given_records import (
    GIVEN_RECORDS,
    GivenRecord,
    decide,
)
from observatory_storage.repositories.reading.pages import Keyset, Search, Seek, Total
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.searched_text import without_middles
from observatory_storage.repositories.reading.text_search import TextSearch
from observatory_storage.tables import LOGS

__all__ = ["DecidedSearch", "FramedRecords", "LogKey", "is_one_of"]

T = TypeVar("T", LogRecord, dict[str, Any])

# Of more hours, most records with frames would be found anyway.
_MOST_HOURS: Final = 20_000
# The rows that are read at once to decide about all, and the most that a page reads at once.
_ROWS_AT_ONCE: Final = 200
_MOST_ROWS: Final = 1_000


class LogKey(NamedTuple):
    """The primary key of a log record."""

    timestamp: datetime
    id: UUID


class FramedRecords:
    """The records with frames that match filters by their content.

    It remembers which hours may have matches, so it is made anew for each page.
    """

    def __init__(self, connection: sa.Connection | Session, filters: LogFilters) -> None:
        self._connection = connection
        self._filters = filters
        self._words = FramedWords(connection, filters.start_time, filters.end_time)

    @property
    def is_any(self) -> bool:
        """Whether the filters have conditions on content, and there are log frames in the range."""
        if not self._filters.searches_content():
            return False
        with translated():
            return self._words.has_log_frames

    def conditions(self) -> Conditions:
        """The conditions of the filters, which records with frames meet that may match."""
        if not self.is_any:
            return self._filters.conditions()
        return self._filters.conditions_with(self._may_match)

    def resolved(self, among: Sequence[LogKey] | None = None) -> Conditions:
        """The conditions of the filters, decided for records with frames.

        Args:
            among: the keys of the records that are asked for; None for all.
        """
        if not self.is_any:
            return self._filters.conditions()
        matching = [key for key, _ in self.matching(among=among)]
        return self._filters.conditions_with(is_one_of(matching))

    def decided(self, records: Sequence[T]) -> list[T]:
        """Those of the records, which have their whole values, that match by their content."""
        if not self.is_any:
            return list(records)
        return [record for record, _ in self._ranked(records)]

    def matching(
        self,
        rank: sa.ColumnElement[float] | None = None,
        among: Sequence[LogKey] | None = None,
    ) -> Iterator[tuple[LogKey, float]]:
        """The keys of the records with frames that match, each with its rank.

        Args:
            rank: the rank of one of `GIVEN_RECORDS`.
            among: the keys of the records that are asked for; None for all.
        """
        record = LogRecord.__table__.c
        names = ("trace_id", *LOGS.key, "timestamp_ns", *GivenRecord._fields, "payload_frame")
        statement = (
            sa.select(*(record[name] for name in (*names, "payload_digests")))
            .where(*self.conditions(), LogRecord.payload_frame.is_not(None))
            .order_by(*(record[name] for name in LOGS.key))
            .limit(_ROWS_AT_ONCE)
        )
        if among is not None:
            times = [key.timestamp for key in among]
            bounds = record.timestamp.between(min(times), max(times))  # prunes partitions
            statement = statement.where(bounds, is_one_of(among))
        after: LogKey | None = None
        while True:
            page = statement
            if after is not None:
                page = page.where(sa.tuple_(*(record[name] for name in LOGS.key)) > after)
                page = page.where(record.timestamp >= after.timestamp)
            with translated():
                rows = [dict(row) for row in self._connection.execute(page).mappings()]
                log_damage(fill_whole(self._connection, LOGS, rows))
            for row, found in self._ranked(rows, rank):
                yield LogKey(row["timestamp"], row["id"]), found
            if len(rows) < _ROWS_AT_ONCE:
                return
            after = LogKey(rows[-1]["timestamp"], rows[-1]["id"])

    @cached_property
    def _may_match(self) -> sa.ColumnElement[bool]:
        is_framed = LogRecord.payload_frame.is_not(None)
        text = self._filters.text
        runs = TextSearch(text).required_runs() if text is not None else ()
        with translated():
            hours = self._words.candidates(runs) if runs else None
        if hours is None or len(hours) > _MOST_HOURS:
            return is_framed
        return sa.and_(is_framed, within_hours(sorted(hours))) if hours else sa.false()

    def _ranked(
        self, records: Iterable[T], rank: sa.ColumnElement[float] | None = None
    ) -> Iterator[tuple[T, float]]:
        conditions = self._filters.content_conditions(GIVEN_RECORDS)
        given = ((record, self._given(record)) for record in records)
        return decide(self._connection, given, *conditions, rank=rank)

    def _given(self, record: LogRecord | Mapping[str, Any]) -> GivenRecord:
        is_for_words = self._filters.contains is None

        def text(value: Any) -> str:
            encoded = jsonb.dumps(value)
            return (without_middles(encoded) if is_for_words else encoded).decode()

        body = record["body_json"]
        return GivenRecord(
            record["event_name"],
            record["body"],
            text(record["attributes"]),
            None if body is None else text(body),
        )


class DecidedSearch:
    """A list of records, of which those with frames are decided page by page: a `pages.Search`.

    Args:
        search: finds the records that meet the conditions of `framed`.
    """

    def __init__(self, reader: Reader, search: Search[LogRecord], framed: FramedRecords) -> None:
        self._reader, self._search, self._framed = reader, search, framed
        self.keyset: Keyset = search.keyset
        self.query: Mapping[str, Any] = search.query

    def count(self, kind: Total) -> int:
        if kind == "estimated":
            return self._search.count(kind)
        return self._reader.count(sa.select(LogRecord).where(*self._framed.resolved()), kind)

    def rows(self, seek: Seek) -> list[LogRecord]:
        found: list[LogRecord] = []
        step = seek
        while True:
            rows = self._search.rows(step)
            found += self._framed.decided(rows)
            if len(rows) < step.row_limit or len(found) >= seek.row_limit:
                return found[: seek.row_limit]
            key, more = self.keyset.key_of(rows[-1]), min(2 * step.row_limit, _MOST_ROWS)
            step = replace(step, key=key, row_limit=max(more, seek.row_limit))


def is_one_of(keys: Sequence[LogKey]) -> sa.ColumnElement[bool]:
    """Whether a log record has one of these keys."""
    if not keys:
        return sa.false()
    times, ids = zip(*keys, strict=True)
    given = sa.func.unnest(
        sa.literal(list(times), sa.ARRAY(LogRecord.timestamp.type)),
        sa.literal(list(ids), sa.ARRAY(LogRecord.id.type)),
    )
    wanted = given.table_valued("timestamp", "id").render_derived(name="wanted")
    return sa.tuple_(LogRecord.timestamp, LogRecord.id).in_(sa.select(*wanted.c))


def within_hours(hours: Sequence[HourKey]) -> sa.ColumnElement[bool]:
    """Whether a log record is of one of these hours of traces, which are at least one."""
    traces, starts = zip(*hours, strict=True)
    given = sa.func.unnest(
        sa.literal(list(traces), sa.ARRAY(LogRecord.id.type)),
        sa.literal(list(starts), sa.ARRAY(LogRecord.timestamp.type)),
    )
    wanted = given.table_valued("trace_id", "hour").render_derived(name="of_words")
    hour = sa.func.date_trunc("hour", LogRecord.timestamp, "UTC")
    return sa.tuple_(LogRecord.trace_id, hour).in_(sa.select(*wanted.c))
