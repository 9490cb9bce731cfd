"""Stores prepared rows in one transaction, with retries, and isolates refused rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tenacity import RetryCallState

from observatory_storage.commits import Commit
from observatory_storage.config import PayloadMode
from observatory_storage.errors import Rejected, StorageError, ValidationError, sqlstate_of
from observatory_storage.rows import Row, prepare_trace
from observatory_storage.storing import transaction
from observatory_storage.storing.binary_copy import SentBytes
from observatory_storage.storing.conflict_rules import TARGETS, target_of
from observatory_storage.storing.event_merge import write_events
from observatory_storage.storing.log_loading import write_logs
from observatory_storage.storing.span_copy import write_spans
from observatory_storage.storing.span_filling import fill_from_logs, logged_facts
from observatory_storage.storing.upsert import Loader, Method
from observatory_storage.tables import EVENTS, LOGS, SPANS, TRACES, table_named

__all__ = ["StoreResult", "as_written", "store", "store_into", "write_batch"]

_TRACE_ID: Final = TRACES.position["id"]
_TRACE_ID_OF_SPAN, _START_OF_SPAN = SPANS.positions("trace_id", "start_time")
# Spans are written with their traces and events; all other tables by themselves.
_WRITTEN_TOGETHER: Final = {TRACES.name, SPANS.name, EVENTS.name}
# The classes of SQLSTATE that refuse a row for its data.
_DATA_CLASSES: Final = frozenset({"22", "23", "54"})


@dataclass(slots=True)
class StoreResult:
    """The result of storing a batch.

    Attributes:
        committed: the number of committed rows.
        rejected: the rows that were refused for their data.
        retries: the number of attempts that were repeated after a transient error.
        repaired: the number of texts that were changed because PostgreSQL cannot store them.
        duplicates: the number of committed spans, data points and log records whose key existed.
        sent: the number of bytes sent for rows, including failed attempts.
    """

    committed: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    retries: int = 0
    repaired: int = 0
    duplicates: int = 0
    sent: SentBytes = field(default_factory=SentBytes)

    def retried(self, _: RetryCallState | None = None) -> None:
        """Count an attempt that is repeated."""
        self.retries += 1


def store(
    source: transaction.Source,
    rows: Sequence[Row],
    method: Method = "auto",
    payloads: PayloadMode | None = None,
) -> StoreResult:
    """Commit the rows, in one transaction if the server accepts all of them.

    After a transient error, the whole batch is repeated with exponential backoff and jitter. This
    is safe even if the confirmation of a commit was lost, because keys are deterministic. A batch
    that is refused for its data is halved until the bad rows are isolated. All other rows are
    committed.

    Raises:
        ValidationError: a row names a table that is not in the registry; nothing is written.
        StorageError: the database could not be written to. Rows that were committed before stay,
            and writing the whole batch again does not change them.
    """
    result = StoreResult()
    store_into(result, source, rows, method, payloads)
    return result


def store_into(
    result: StoreResult,
    source: transaction.Source,
    rows: Sequence[Row],
    method: Method = "auto",
    payloads: PayloadMode | None = None,
    *,
    first_index: int = 0,
) -> None:
    """The same as `store`, but `result` also covers the work before an error.

    Args:
        result: the result to add to.
        source: the pool.
        rows: prepared rows.
        method: how rows are written to their tables.
        payloads: where large values are stored; None is as configured.
        first_index: the index of the first row, by which `result.rejected` names rows.
    """
    names = {row.table for row in rows}
    for name in names:
        table_named(name)
    if not rows:
        return

    threshold = transaction.payload_threshold(source, payloads)

    def once() -> int:
        return transaction.write_with_partitions(
            source, rows, write, before_repeat=result.retried, framed=threshold is not None
        )

    existing = 0

    def write(these: Sequence[Row]) -> None:
        nonlocal existing
        prices = source.prices.table() if SPANS.name in names else None
        with (
            transaction.writing(source),
            source.commits.telling() as telling,
            source.engine.begin() as connection,
        ):
            loader = Loader(
                *(connection, method, result.sent),
                prices=prices,
                payload_threshold=threshold,
                keep_spans=source.commits.keeps_rows,
            )
            write_batch(loader, these)
            telling.announce(connection, Commit(as_written(loader, these)))
        existing = loader.existing

    try:
        result.repaired += transaction.retrying(source.config, once, before_sleep=result.retried)
    except StorageError as error:
        if not _is_about_data(error):
            raise
        if len(rows) == 1:
            result.rejected.append(Rejected(first_index, rows[0].as_dict(), error))
            return
        middle = len(rows) // 2
        store_into(result, source, rows[:middle], method, payloads, first_index=first_index)
        store_into(
            result, source, rows[middle:], method, payloads, first_index=first_index + middle
        )
    else:
        result.committed += len(rows)
        result.duplicates += existing


def write_batch(loader: Loader, rows: Sequence[Row], *, optimistic: bool = True) -> None:
    """Write rows of any tables inside the transaction of the loader's connection.

    Args:
        loader: a loader on a connection in a transaction.
        rows: prepared rows.
        optimistic: False if these rows have met a conflict already.
    """
    by_table: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_table[row.table].append(row)
    for name, target in TARGETS.items():
        if name not in _WRITTEN_TOGETHER:
            values = [row.values for row in by_table[name]]
            if name == LOGS.name:
                write_logs(loader, values, optimistic=optimistic)
            else:
                loader.upsert(target, values, optimistic=optimistic)
    spans, traces = by_table[SPANS.name], by_table[TRACES.name]
    trace_rows = [row.values for row in (*traces, *_traces_to_lock(traces, spans))]
    events = [row.values for row in by_table[EVENTS.name]]
    if spans:
        write_spans(loader, spans, trace_rows=trace_rows, lone_events=events, optimistic=optimistic)
    else:
        loader.upsert(target_of(TRACES), trace_rows)
    write_events(loader, events)
    if told := logged_facts(by_table[LOGS.name]):
        fill_from_logs(loader.connection, told)


def as_written(loader: Loader, rows: Sequence[Row]) -> Sequence[Row]:
    """The rows, with spans as the loader has written them, if it has kept them."""
    if not loader.written_spans:
        return rows
    if len(loader.written_spans) == len(rows):
        return loader.written_spans
    return [*loader.written_spans, *(row for row in rows if row.table != SPANS.name)]


def _traces_to_lock(traces: Sequence[Row], spans: Sequence[Row]) -> list[Row]:
    """Rows for the traces of this batch's spans that have no row in it, to lock all in order.

    One statement locks all traces in the order of their ids. Two statements would lock in two
    orders, and could deadlock with another writer. The spans override the values of these rows.
    """
    if not traces:
        return []
    known = {row.values[_TRACE_ID] for row in traces}
    first: dict[Any, Row] = {}
    for row in spans:
        trace_id = row.values[_TRACE_ID_OF_SPAN]
        if trace_id not in known:
            earliest = first.setdefault(trace_id, row)
            if row.values[_START_OF_SPAN] < earliest.values[_START_OF_SPAN]:
                first[trace_id] = row
    return [
        prepare_trace({"trace_id": row.trace_text, "start_time": row.values[_START_OF_SPAN]})
        for row in first.values()
    ]


def _is_about_data(error: StorageError) -> bool:
    if isinstance(error, ValidationError):
        return True
    cause = error.__cause__
    state = sqlstate_of(cause) if cause is not None else None
    return state is not None and state[:2] in _DATA_CLASSES
