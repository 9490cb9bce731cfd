"""The techniques of this package, and the steps that they consist of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from observatory_storage import (
    CopyWriter,
    LogWriter,
    MetricWriter,
    StoragePool,
    TraceWriter,
    WriterConfig,
)
from observatory_storage.storing import Method, store
from observatory_storage.storing.binary_copy import copy_rows
from observatory_storage.storing.conflict_rules import TARGETS
from observatory_storage.writers.buffered_writer import BufferedWriter
from tests.benchmarks.limit import limit
from tests.benchmarks.technique import Prepare, Run, Technique, in_turn, timed
from tests.benchmarks.workload import Workload, batches

__all__ = [
    "AUTO",
    "COPY",
    "END_TO_END",
    "FLUSHED",
    "INSERT",
    "STEPS",
    "by_threads",
    "write_at_once",
]

_ROWS_A_CALL: Final = 1000


def write_at_once(writer: CopyWriter, table: str) -> Callable[[Iterable[Any]], int]:
    """The method of the writer for a table."""
    match table:
        case "trace_spans":
            return writer.write_spans
        case "logs":
            return writer.write_logs
        case _:
            return writer.write_data_points


def copy_writer(method: Method, threads: int = 1) -> Prepare:
    """One call for each batch, from threads that share the writer."""

    @contextmanager
    def prepare(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
        write = write_at_once(CopyWriter(pool, method=method), load.table)
        with in_turn(write, batches(load.rows, batch), threads) as run:
            yield run

    return prepare


def _buffered(
    pool: StoragePool, table: str, config: WriterConfig
) -> tuple[BufferedWriter, Callable[[Iterable[Any]], None]]:
    match table:
        case "trace_spans":
            traces = TraceWriter(pool, config)
            return traces, traces.write_spans
        case "logs":
            logs = LogWriter(pool, config)
            return logs, logs.write_logs
        case _:
            metrics = MetricWriter(pool, config)
            return metrics, metrics.write_data_points


def buffered(flushes: int = 1, threads: int = 1) -> Prepare:
    """A buffered writer that flushes in the background, from its creation to its close.

    Args:
        flushes: max_concurrency.
        threads: the number of threads that write to it at the same time.
    """

    @contextmanager
    def prepare(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
        config = WriterConfig(batch_size=batch, max_concurrency=flushes)
        parts = [load.rows] if threads == 1 else batches(load.rows, _ROWS_A_CALL)

        def run() -> list[float]:
            writer, write = _buffered(pool, load.table, config)
            with writer, in_turn(write, parts, threads) as turns:
                turns()
                writer.flush()
            return []

        yield run

    return prepare


@contextmanager
def flushed(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
    """A buffered writer with a call of flush() after each batch."""
    config = WriterConfig(batch_size=batch)
    parts = batches(load.rows, batch)

    def run() -> list[float]:
        taken = []
        writer, write = _buffered(pool, load.table, config)
        with writer:
            for part in parts:
                write(part)
                taken.append(timed(lambda _: writer.flush(), None))
        return taken

    yield run


@contextmanager
def copy_of_prepared(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
    """The COPY of prepared rows by the writers, with a commit."""
    target = TARGETS[load.table]

    def write(rows: list[Any]) -> None:
        with pool.engine.begin() as connection:
            copy_rows(connection, target, rows, target.target)

    parts = batches([row.values for row in load.prepared], batch)
    with in_turn(write, parts) as run:
        yield run


@contextmanager
def store_of_prepared(pool: StoragePool, load: Workload, batch: int) -> Iterator[Run]:
    """A flush of prepared rows: sort them, copy them in a savepoint, and merge the traces."""
    parts = batches(load.prepared, batch)
    with in_turn(lambda rows: store(pool, rows, "copy"), parts) as run:
        yield run


COPY: Final = Technique("CopyWriter, copy", copy_writer("copy"))
AUTO: Final = Technique("CopyWriter, auto", copy_writer("auto"))
INSERT: Final = Technique("CopyWriter, insert", copy_writer("insert"), is_slow=True)
END_TO_END: Final = Technique("buffered writer", buffered())
FLUSHED: Final = Technique("buffered writer, flush()", flushed)
STEPS: Final = (
    Technique("step: COPY of prepared rows", copy_of_prepared),
    Technique("step: flush of prepared rows", store_of_prepared),
)


def by_threads(count: int) -> tuple[Technique, ...]:
    """Techniques with several threads or connections."""
    if count == 1:
        return (COPY, INSERT, END_TO_END)
    return (
        Technique(f"limit, {count} connections", limit(count)),
        Technique(f"CopyWriter, copy, {count} threads", copy_writer("copy", count)),
        Technique(
            f"CopyWriter, insert, {count} threads", copy_writer("insert", count), is_slow=True
        ),
        Technique(f"buffered writer, {count} flushes", buffered(count)),
        Technique(f"buffered writer, {count} threads", buffered(count, count)),
    )
