"""`CopyWriter`: each call writes all of its rows or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, get_args

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from observatory_storage import models, tables
from observatory_storage.commits import Commit, tell_with_session, telling_itself
from observatory_storage.config import PayloadMode
from observatory_storage.errors import ValidationError
from observatory_storage.pricing import PriceTable
from observatory_storage.read_only_guard import refuse_writing
from observatory_storage.rows import PART, Row
from observatory_storage.storing import (
    Loader,
    Method,
    StoreResult,
    as_written,
    chosen_method,
    transaction,
    write_batch,
)
from observatory_storage.storing.row_stream import RowFeed, StreamOutcome, stream

__all__ = ["CopyWriter"]


class UnitOfWork(Protocol):
    """The attributes of a unit of work that writing needs."""

    @property
    def session(self) -> Session: ...
    @property
    def source(self) -> transaction.Source: ...


class CopyWriter:
    """Writes rows without a buffer: each call writes all of its rows or none.

    With a pool, each call is one transaction, which is repeated after a transient error. With a
    unit of work, a call is part of its transaction, and the caller commits. Missing partitions are
    created on another connection of the pool, and stay even if the rows are rolled back. If the
    pool has only one connection, they are created within the unit of work.

    Rows are ORM instances or mappings with the columns' names. Every method returns the number of
    rows that it was given, without those that a rule of the configuration drops. If a row is not
    valid, it raises a `ValidationError` that names row,
    field and value.

    Args:
        target: a `StoragePool` or a `UnitOfWork`.
        method: "copy" for binary COPY, "insert" for INSERT, or "auto" for INSERT of a single row
            and COPY of more.
        payloads: where large values of spans and events are stored: "inline" in their rows,
            "compressed" beside them; None is as ``payloads.mode`` of the pool's configuration says.

    Raises:
        ConfigError: values shall be compressed, and Zstandard is not installed.
        ReadOnly: the unit of work is read only.
    """

    def __init__(
        self,
        target: transaction.Source | UnitOfWork,
        *,
        method: Method = "auto",
        payloads: PayloadMode | None = None,
    ) -> None:
        self._session: Session | None = getattr(target, "session", None)
        if self._session is not None:
            refuse_writing(self._session, "CopyWriter")
        self._source = transaction.source_of("target", getattr(target, "source", target))
        if method not in get_args(Method):
            raise ValidationError("method", method, f"must be one of {', '.join(get_args(Method))}")
        self._method: Method = method
        self._payloads = transaction.payload_mode(self._source, payloads)
        self._threshold = transaction.payload_threshold(self._source, self._payloads)

    def write_traces(self, rows: Iterable[models.Trace | Mapping[str, Any]]) -> int:
        """Write the columns of traces that are not computed from spans."""
        return self._write(tables.TRACES, rows)

    def write_spans(self, rows: Iterable[models.TraceSpan | Mapping[str, Any]]) -> int:
        """Write spans with their events, and merge them into the totals of their traces."""
        return self._stream(tables.SPANS, rows)

    def write_events(self, rows: Iterable[models.TraceEvent | Mapping[str, Any]]) -> int:
        """Write events without their spans. Each names its span and has a position."""
        return self._write(tables.EVENTS, rows)

    def write_metrics(self, rows: Iterable[models.Metric | Mapping[str, Any]]) -> int:
        """Write definitions of metrics. An existing definition is updated."""
        return self._write(tables.METRICS, rows)

    def write_data_points(self, rows: Iterable[models.MetricDataPoint | Mapping[str, Any]]) -> int:
        """Write data points. An existing data point is kept."""
        return self._stream(tables.DATA_POINTS, rows)

    def write_logs(self, rows: Iterable[models.LogRecord | Mapping[str, Any]]) -> int:
        """Write log records. An existing log record is kept."""
        return self._stream(tables.LOGS, rows)

    def _write(self, table: tables.TableDefinition, rows: Iterable[Any]) -> int:
        return self._measured(table, rows, self._write_prepared)

    def _stream(self, table: tables.TableDefinition, rows: Iterable[Any]) -> int:
        return self._measured(table, rows, self._write_streamed)

    def _measured(
        self,
        table: tables.TableDefinition,
        rows: Iterable[Any],
        write: Callable[[RowFeed, StoreResult], None],
    ) -> int:
        feed = RowFeed(table, rows, self._source.rules)
        if not len(feed):
            return 0
        result = StoreResult()
        with self._source.hooks.measure("write", table.name) as measured:
            measured.method = chosen_method(self._method, len(feed))
            try:
                write(feed, result)
                measured.rows = len(feed)
            finally:
                measured.bytes, measured.retries = result.sent.count, result.retries
        return len(feed)

    def _write_streamed(self, feed: RowFeed, result: StoreResult) -> None:
        # Few rows are prepared in no time, and checked without a connection then.
        streams = self._session is None and len(feed) > PART
        if not streams or chosen_method(self._method, len(feed)) == "insert":
            self._write_prepared(feed, result)
            return
        outcome = stream(self._source, feed, self._payloads, result)
        if outcome is not StreamOutcome.WRITTEN:
            self._write_alone(feed.all(), result, optimistic=outcome is not StreamOutcome.CONFLICT)

    def _write_prepared(self, feed: RowFeed, result: StoreResult) -> None:
        prepared = feed.all()
        if not prepared:
            return
        if self._session is None:
            self._write_alone(prepared, result)
        else:
            self._write_within(self._session, prepared, result)

    def _write_alone(
        self, rows: list[Row], result: StoreResult, *, optimistic: bool = True
    ) -> None:
        def write(these: Sequence[Row]) -> None:
            prices = self._source.prices.table() if _has_spans(rows) else None
            with (
                transaction.writing(self._source),
                self._source.commits.telling() as telling,
                self._source.engine.begin() as connection,
            ):
                loader = self._loader(connection, prices, result)
                write_batch(loader, these, optimistic=optimistic)
                telling.announce(connection, Commit(as_written(loader, these)))

        def once() -> None:
            framed = self._threshold is not None
            transaction.write_with_partitions(
                self._source, rows, write, before_repeat=result.retried, framed=framed
            )

        transaction.retrying(self._source.config, once, before_sleep=result.retried)

    def _write_within(self, session: Session, rows: list[Row], result: StoreResult) -> None:
        def write(these: Sequence[Row]) -> None:
            with (
                transaction.writing(self._source),
                telling_itself(session),
                session.begin_nested(),
            ):
                loader = self._loader(session.connection(), prices, result)
                write_batch(loader, these)
            tell_with_session(session, Commit(as_written(loader, these)))

        # A session that has no connection yet gets one when the partitions are there.
        held = session.connection() if session.in_transaction() else None
        prices = self._source.prices.table(held) if _has_spans(rows) else None
        framed = self._threshold is not None
        transaction.write_with_partitions(self._source, rows, write, held, framed=framed)

    def _loader(
        self, connection: Connection, prices: PriceTable | None, result: StoreResult
    ) -> Loader:
        return Loader(
            *(connection, self._method, result.sent),
            prices=prices,
            payload_threshold=self._threshold,
            keep_spans=self._source.commits.keeps_rows,
        )


def _has_spans(rows: Sequence[Row]) -> bool:
    """Whether the rows, which are all of one table, are spans."""
    return rows[0].table == tables.SPANS.name
