"""A batch of prepared rows into PostgreSQL: one transaction, retried, with bad rows set apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar, cast

from sqlalchemy import Connection, Engine
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
)

from observatory_storage import jsonb
from observatory_storage.backoff import backoff
from observatory_storage.config import StorageConfig
from observatory_storage.errors import (
    Rejected,
    StorageError,
    ValidationError,
    sqlstate_of,
    translated,
)
from observatory_storage.layout import PARTITIONED, Partitions
from observatory_storage.rows import COLUMNS, Row, prepare_trace
from observatory_storage.writers.load import Method, is_text_error, repaired, write_rows
from observatory_storage.writers.spans import write_spans
from observatory_storage.writers.tables import EVENTS, LOGS, METRICS, POINTS, SPANS, TRACES

__all__ = [
    "PartitionMissing",
    "Source",
    "StoreResult",
    "ensure_partitions",
    "repairing",
    "retrying",
    "source_of",
    "store",
    "write_batch",
    "writing",
]

_CHECK_VIOLATION: Final = "23514"
_PARTITION_COLUMNS: Final = {
    table: COLUMNS[table].index(column) for table, column in PARTITIONED.items()
}
_TRACE_ID: Final = COLUMNS["traces"].index("id")
# What refuses a row for its data; any other refusal is no fault of the rows.
_DATA_CLASSES: Final = frozenset({"22", "23", "54"})
_T = TypeVar("_T")


class Source(Protocol):
    """What writing needs of a pool."""

    @property
    def engine(self) -> Engine: ...
    @property
    def schema(self) -> str: ...
    @property
    def partitions(self) -> Partitions: ...
    @property
    def config(self) -> StorageConfig: ...


def source_of(field: str, value: Any) -> Source:
    """The pool that a writer was given.

    Raises:
        ValidationError: it is something else.
    """
    if not hasattr(value, "partitions"):
        # A URL may have been given, with a password in it: not shown.
        raise ValidationError(field, type(value), "must be a StoragePool")
    return cast(Source, value)


class PartitionMissing(StorageError):
    """A partition went away between the look and the write."""

    retryable = True


@dataclass(slots=True)
class StoreResult:
    """What became of a batch: how many rows are committed, which were refused."""

    committed: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    retries: int = 0


def store(
    source: Source, rows: Sequence[Row], method: Method = "auto", *, first_index: int = 0
) -> StoreResult:
    """Commit the rows, as one transaction where the server takes them all.

    Transient errors are retried as whole batches with exponential backoff and jitter: keys are
    deterministic, so a commit whose answer was lost is safe to repeat. A batch that is refused
    for its data is halved until the bad rows stand alone, and all others are committed.

    Raises:
        StorageError: the database could not be written to at all; what was committed before that
            stays, and writing the whole batch again changes nothing of it.
    """
    result = StoreResult()
    if not rows:
        return result

    def count(_: RetryCallState) -> None:
        result.retries += 1

    def once() -> None:
        ensure_partitions(source, rows)
        repairing(rows, write)

    def write(these: Sequence[Row]) -> None:
        with writing(source), source.engine.begin() as connection:
            write_batch(connection, these, method)

    try:
        retrying(source.config, once, before_sleep=count)
    except StorageError as error:
        if not _is_about_data(error):
            raise
        if len(rows) == 1:
            result.rejected.append(Rejected(first_index, rows[0].as_dict(), error))
            return result
        middle = len(rows) // 2
        for start, half in ((0, rows[:middle]), (middle, rows[middle:])):
            part = store(source, half, method, first_index=first_index + start)
            result.committed += part.committed
            result.retries += part.retries
            result.rejected += part.rejected
    else:
        result.committed = len(rows)
    return result


def write_batch(
    connection: Connection, rows: Sequence[Row], method: Method, *, optimistic: bool = True
) -> None:
    """Write rows of any tables inside the connection's transaction.

    Args:
        connection: in a transaction.
        rows: prepared rows.
        method: how they go into their tables.
        optimistic: False where the spans among them have met a conflict already.
    """
    by_table: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_table[row.table].append(row)
    for writer in (METRICS, POINTS, LOGS):
        write_rows(connection, writer, [row.values for row in by_table[writer.name]], method)
    spans, traces = by_table[SPANS.name], by_table[TRACES.name]
    trace_rows = [row.values for row in (*traces, *_silent_traces(traces, spans))]
    events = [row.values for row in by_table[EVENTS.name]]
    if spans:
        write_spans(
            connection,
            spans,
            method,
            trace_rows=trace_rows,
            alone=events,
            optimistic=optimistic,
        )
    else:
        write_rows(connection, TRACES, trace_rows, method)
    write_rows(connection, EVENTS, events, method)


def _silent_traces(traces: Sequence[Row], spans: Sequence[Row]) -> list[Row]:
    """Traces that only the spans of this batch speak of, to be locked along with the others.

    One statement locks them all, in the order of their ids: two would be two orders, and a
    deadlock with another writer. What these rows say the spans overrule.
    """
    if not traces:
        return []
    at = {column: COLUMNS[SPANS.name].index(column) for column in ("trace_id", "start_time")}
    known = {row.values[_TRACE_ID] for row in traces}
    first: dict[Any, Row] = {}
    for row in spans:
        trace_id = row.values[at["trace_id"]]
        if trace_id not in known:
            earliest = first.setdefault(trace_id, row)
            if row.values[at["start_time"]] < earliest.values[at["start_time"]]:
                first[trace_id] = row
    return [
        prepare_trace({"trace_id": row.trace_text, "start_time": row.values[at["start_time"]]})
        for row in first.values()
    ]


def repairing(rows: Sequence[Row], write: Callable[[Sequence[Row]], None]) -> None:
    """Write the rows, with their text repaired once the server or the driver has objected to it.

    To look for text that PostgreSQL cannot hold beforehand would cost every clean row.
    """
    try:
        write(rows)
    except Exception as error:  # of Python's own or translated: all others go on up
        if not is_text_error(error.__cause__ or error):
            raise
        write([_repaired(row) for row in rows])


def _repaired(row: Row) -> Row:
    events = None if row.events is None else tuple(repaired(event) for event in row.events)
    text = jsonb.clean_text(row.trace_text)
    return row._replace(values=repaired(row.values), events=events, trace_text=text)


def ensure_partitions(
    source: Source, rows: Sequence[Row], within: Connection | None = None
) -> None:
    """Make the partitions that the rows need, in a transaction of their own.

    Args:
        within: a connection that the caller holds: see `Partitions.ensure_within`.
    """
    moments: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        at = _PARTITION_COLUMNS.get(row.table)
        if at is not None:
            moments[row.table].append(row.values[at])
            if row.events:
                moments[EVENTS.name].append(row.values[at])
    for table, needed in moments.items():
        if within is None:
            source.partitions.ensure(table, needed)
        else:
            source.partitions.ensure_within(within, table, needed)


@contextmanager
def writing(source: Source) -> Iterator[None]:
    """Translate errors, and have a missing partition looked up again before the next attempt."""
    try:
        with translated():
            yield
    except StorageError as error:
        cause = error.__cause__
        diagnostic = getattr(getattr(cause, "orig", None) or cause, "diag", None)
        # A check of ours has a name; "no partition found for row" has none.
        if (
            cause is not None
            and sqlstate_of(cause) == _CHECK_VIOLATION
            and getattr(diagnostic, "constraint_name", None) is None
        ):
            source.partitions.forget()
            raise PartitionMissing from cause
        raise


def retrying(
    config: StorageConfig,
    action: Callable[[], _T],
    *,
    before_sleep: Callable[[RetryCallState], None] | None = None,
) -> _T:
    """Run the action again while it fails for a passing reason, as the configuration allows."""
    retry = config.retry
    attempts = Retrying(
        stop=stop_after_attempt(retry.max_attempts),
        wait=backoff(retry),
        retry=retry_if_exception(lambda e: isinstance(e, StorageError) and e.retryable),
        before_sleep=before_sleep,
        reraise=True,
    )
    return attempts(action)


def _is_about_data(error: StorageError) -> bool:
    if isinstance(error, ValidationError):
        return True
    cause = error.__cause__
    state = sqlstate_of(cause) if cause is not None else None
    return state is not None and state[:2] in _DATA_CLASSES
