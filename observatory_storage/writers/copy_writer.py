"""`CopyWriter`: each call writes all of its rows or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, get_args

from sqlalchemy.orm import Session

from observatory_storage.errors import ValidationError
from observatory_storage.models import (
    LogRecord,
    Metric,
    MetricDataPoint,
    Trace,
    TraceEvent,
    TraceSpan,
)
from observatory_storage.rows import PART, Row, prepare_all, remember_id
from observatory_storage.storing import (
    Loader,
    Method,
    Source,
    chosen_method,
    source_of,
    write_batch,
)
from observatory_storage.storing.span_stream import SpanFeed, StreamOutcome, stream_spans
from observatory_storage.storing.transaction import (
    PartitionMissing,
    ensure_partitions,
    repairing,
    retrying,
    writing,
)
from observatory_storage.tables import (
    DATA_POINTS,
    EVENTS,
    LOGS,
    METRICS,
    TRACES,
    TableDefinition,
)

__all__ = ["CopyWriter"]


class UnitOfWork(Protocol):
    """The attributes of a unit of work that writing needs."""

    @property
    def session(self) -> Session: ...
    @property
    def source(self) -> Source: ...


class CopyWriter:
    """Writes rows without a buffer: each call writes all of its rows or none.

    With a pool, each call is one transaction, which is repeated after a transient error. With a
    unit of work, a call is part of its transaction, and the caller commits. Missing partitions are
    created on another connection of the pool, and stay even if the rows are rolled back. If the
    pool has only one connection, they are created within the unit of work.

    Rows are ORM instances or mappings with the columns' names. Every method returns the number of
    rows that it was given. If a row is not valid, it raises a `ValidationError` that names row,
    field and value.

    Args:
        target: a `StoragePool` or a `UnitOfWork`.
        method: "copy" for binary COPY, "insert" for INSERT, or "auto" for INSERT of a single row
            and COPY of more.
    """

    def __init__(self, target: Source | UnitOfWork, *, method: Method = "auto") -> None:
        self._session: Session | None = getattr(target, "session", None)
        self._source = source_of("target", getattr(target, "source", target))
        if method not in get_args(Method):
            raise ValidationError("method", method, f"must be one of {', '.join(get_args(Method))}")
        self._method: Method = method

    def write_traces(self, rows: Iterable[Trace | Mapping[str, Any]]) -> int:
        """Write the columns of traces that are not computed from spans."""
        return self._write(TRACES, rows)

    def write_spans(self, rows: Iterable[TraceSpan | Mapping[str, Any]]) -> int:
        """Write spans with their events, and merge them into the totals of their traces."""
        feed = SpanFeed(rows)
        # Few spans are prepared in no time, and checked without a connection then.
        streams = self._session is None and len(feed) > PART
        if streams and chosen_method(self._method, len(feed)) == "copy":
            retrying(self._source.config, lambda: self._stream_alone(feed))
            return len(feed)
        return self._write_prepared(feed.all())

    def write_events(self, rows: Iterable[TraceEvent | Mapping[str, Any]]) -> int:
        """Write events without their spans. Each names its span and has a position."""
        return self._write(EVENTS, rows)

    def write_metrics(self, rows: Iterable[Metric | Mapping[str, Any]]) -> int:
        """Write definitions of metrics. An existing definition is updated."""
        return self._write(METRICS, rows)

    def write_data_points(self, rows: Iterable[MetricDataPoint | Mapping[str, Any]]) -> int:
        """Write data points. An existing data point is kept."""
        return self._write(DATA_POINTS, rows)

    def write_logs(self, rows: Iterable[LogRecord | Mapping[str, Any]]) -> int:
        """Write log records. An existing log record is kept."""
        return self._write(LOGS, rows)

    def _write(self, table: TableDefinition, rows: Iterable[Any]) -> int:
        given = list(rows)
        prepared = prepare_all(table, given)
        for row, made in zip(given, prepared, strict=True):
            remember_id(row, made)
        return self._write_prepared(prepared)

    def _write_prepared(self, prepared: list[Row]) -> int:
        if not prepared:
            return 0
        if self._session is None:
            retrying(self._source.config, lambda: self._write_alone(prepared))
        else:
            self._write_within(self._session, prepared)
        return len(prepared)

    def _stream_alone(self, feed: SpanFeed) -> None:
        with writing(self._source), self._source.engine.begin() as connection:
            outcome = stream_spans(Loader(connection), feed, self._source.partitions)
        if outcome is not StreamOutcome.WRITTEN:
            self._write_alone(feed.all(), optimistic=outcome is not StreamOutcome.CONFLICT)

    def _write_alone(self, rows: list[Row], *, optimistic: bool = True) -> None:
        def write(these: Sequence[Row]) -> None:
            with writing(self._source), self._source.engine.begin() as connection:
                write_batch(Loader(connection, self._method), these, optimistic=optimistic)

        ensure_partitions(self._source, rows)
        repairing(rows, write)

    def _write_within(self, session: Session, rows: list[Row]) -> None:
        try:
            self._write_nested(session, rows)
        except PartitionMissing:  # it was dropped meanwhile: once more from the savepoint
            self._write_nested(session, rows)

    def _write_nested(self, session: Session, rows: list[Row]) -> None:
        def write(these: Sequence[Row]) -> None:
            with writing(self._source), session.begin_nested():
                write_batch(Loader(session.connection(), self._method), these)

        # A session that has no connection yet gets one when the partitions are there.
        held = session.connection() if session.in_transaction() else None
        ensure_partitions(self._source, rows, held)
        repairing(rows, write)
