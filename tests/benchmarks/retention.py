"""Measures what dropping a past day costs a reader and a writer of the present one."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from rich.console import Console

from observatory_embedded import temporary_database
from observatory_storage import (
    CopyWriter,
    PostgresConfig,
    RetentionConfig,
    StorageConfig,
    StorageError,
    StoragePool,
)
from observatory_storage.layout import PARTITIONED
from observatory_storage.lifecycle.retention import apply_retention
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import Trace
from tests.benchmarks.output import Output

_DAY: Final = timedelta(days=1)
_SPANS_A_TRACE: Final = 10
_BATCH: Final = 10_000
_CALL: Final = 100
_TEXT: Final = "The shipment is delayed in the region of the customer, who asks for a refund. " * 3
_SPREAD: Final = 0x9E3779B97F4A7C15F39CC0605CEDC835
_DELETE: Final = re.compile(
    rf'DELETE\s+FROM\s+(?:ONLY\s+)?(?:"?\w+"?\.)?"?(?:{"|".join(PARTITIONED)})', re.IGNORECASE
)


def main(given: Sequence[str] | None = None) -> None:
    """Write two days, drop the past one beside a reader and a writer, and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000, help="of the past day")
    parser.add_argument("--seconds", type=float, default=5, help="of reading and writing before")
    arguments = parser.parse_args(given)
    out = Output(Console(highlight=False))
    server = os.environ.get("DATABASE_URL")
    with temporary_database(server, settings=None, in_memory=False) as url, _pool(url) as pool:
        pool.run_migrations()
        _measure(pool, url, out, arguments.spans, arguments.seconds)


def _pool(url: str) -> StoragePool:
    retention = RetentionConfig(traces=_DAY)
    return StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url), retention=retention))


def _measure(pool: StoragePool, url: str, out: Output, spans: int, seconds: float) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    started = time.perf_counter()
    _fill(pool, today - 3 * _DAY, spans)
    _fill(pool, today, max(spans // 20, _CALL))
    with pool.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")
        connection.exec_driver_sql("CHECKPOINT")
    before, _ = _stored(pool, today)
    out.say(f"{before:,} spans of a past day in {time.perf_counter() - started:.0f} s")
    with deletes_of(pool) as deletes, _others(url) as others:
        others.go_on_for(seconds)
        others.next_phase()
        started = time.perf_counter()
        result = apply_retention(Run(pool))
        took = time.perf_counter() - started
        others.next_phase()
        others.go_on_for(min(seconds, 1))
    left, traces = _stored(pool, today)
    dropped = [one for one in result.partitions if one.outcome == "dropped"]
    freed = sum(one.bytes for one in result.partitions) / 1e6
    out.say(
        f"retention took {took:.2f} s: {result.traces:,} traces and {len(dropped)} of"
        f" {len(result.partitions)} partitions, {freed:,.0f} MB"
    )
    for name, phases in sorted(others.measured.items()):
        quiet, during, _ = phases
        out.say(
            f"longest wait of the {name}: {1e3 * during.longest:.0f} ms in {during.calls:,} calls,"
            f" {1e3 * quiet.longest:.0f} ms in {quiet.calls:,} calls before"
        )
    errors = [
        error for phases in others.measured.values() for one in phases for error in one.errors
    ]
    out.say(f"errors: {len(errors)}")
    for error in errors[:5]:
        out.say(f"  {error}")
    out.say(f"DELETE statements on partitioned tables: {len(deletes)}")
    for statement in deletes[:5]:
        out.say(f"  {statement}")
    out.say(f"left of the past day: {left:,} spans, {traces:,} traces")


def _fill(pool: StoragePool, day: datetime, spans: int) -> None:
    writer = CopyWriter(pool)
    for first in range(0, spans, _BATCH):
        writer.write_spans(_span(day, n, spans) for n in range(first, min(first + _BATCH, spans)))


def _span(day: datetime, number: int, spans: int, *, epoch: int = 0) -> dict[str, Any]:
    """A span of a day that has so many, with the traces one after the other."""
    trace, place = divmod(number, _SPANS_A_TRACE)
    # No trace reaches into the next day: that would spare it.
    start = day + (_DAY - timedelta(minutes=1)) * (trace * _SPANS_A_TRACE / spans)
    start += place * timedelta(seconds=1)
    return {
        # Spread as random ids are.
        "trace_id": f"{(day.toordinal() << 96 | epoch << 64 | trace + 1) * _SPREAD % 2**128:032x}",
        "span_id": f"{(number + 1) * _SPREAD % 2**64:016x}",
        "name": f"operation{number % 7}",
        "service_name": f"service{number % 4}",
        "start_time": start,
        "end_time": start + timedelta(milliseconds=number % 900),
        "status": "ok" if number % 50 else "error",
        "user_id": f"user{trace % 2003}",
        "attributes": {
            "gen_ai.request.model": f"model{number % 3}",
            "gen_ai.usage.input_tokens": number % 1_000,
            "gen_ai.usage.output_tokens": number % 300,
            "gen_ai.completion": f"{number} {_TEXT}",
        },
    }


def _stored(pool: StoragePool, today: datetime) -> tuple[int, int]:
    """The spans and the traces of the past day."""
    with pool.engine.connect() as connection:
        return tuple(
            connection.scalar(
                sa.text(f"SELECT count(*) FROM {table} WHERE start_time < :today"), {"today": today}
            )
            for table in ("trace_spans", "traces")
        )


@contextmanager
def deletes_of(pool: StoragePool) -> Iterator[list[str]]:
    """The statements of this pool that delete rows of partitioned tables."""
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if _DELETE.search(statement):
            seen.append(" ".join(statement.split()))

    sa.event.listen(pool.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(pool.engine, "before_cursor_execute", note)


@dataclass
class _Waits:
    """What the calls of a phase waited, in seconds."""

    calls: int = 0
    longest: float = 0.0
    errors: list[str] = field(default_factory=list)


class _Shared(NamedTuple):
    """What the processes share: the number of the phase, and events, a barrier and a queue."""

    phase: Any
    stop: Any
    ready: Any
    results: Any


class _Others:
    """A reader and a writer, in processes of their own.

    A phase of retention is between two others. A call that reaches into it belongs to it.
    """

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.measured: dict[str, list[_Waits]] = {}
        self._phase, self._stop = context.Value("i", 0), context.Event()
        self._ready, self._results = context.Barrier(3), context.Queue()
        shared = _Shared(self._phase, self._stop, self._ready, self._results)
        self._processes = [
            context.Process(target=work, args=(url, shared), daemon=True)
            for work in (_read, _write)
        ]

    def start(self) -> None:
        for process in self._processes:
            process.start()
        self._ready.wait(timeout=120)

    def go_on_for(self, seconds: float) -> None:
        time.sleep(seconds)
        failed = [process for process in self._processes if not process.is_alive()]
        if failed:
            raise RuntimeError(f"{len(failed)} of the reader and the writer have ended")

    def next_phase(self) -> None:
        self._phase.value += 1

    def finish(self) -> None:
        self._stop.set()
        for _ in self._processes:
            name, waits = self._results.get(timeout=120)
            self.measured[name] = waits
        for process in self._processes:
            process.join()


@contextmanager
def _others(url: str) -> Iterator[_Others]:
    others = _Others(url)
    others.start()
    try:
        yield others
    finally:
        others.finish()


def _read(url: str, shared: _Shared) -> None:
    """Ask for the newest traces, and for one of them by its id."""
    with _pool(url) as pool:
        with pool.engine.connect() as connection:
            known = connection.scalar(sa.select(Trace.trace_id).order_by(Trace.start_time.desc()))
        assert known is not None

        def newest() -> None:
            with pool.unit_of_work() as uow:
                uow.traces.list(limit=50)

        def one() -> None:
            with pool.unit_of_work() as uow:
                trace = uow.traces.get_by_trace_id(known)
                uow.traces.get_spans(trace.id)

        _call_until_stopped("reader", [newest, one], shared)


def _write(url: str, shared: _Shared) -> None:
    """Write spans of the present day."""
    with _pool(url) as pool:
        writer = CopyWriter(pool)
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        numbers = count(1)

        def batch() -> None:
            epoch = next(numbers)
            writer.write_spans(_span(today, n, _CALL, epoch=epoch) for n in range(_CALL))

        _call_until_stopped("writer", [batch], shared)


def _call_until_stopped(
    name: str,
    calls: Sequence[Callable[[], None]],
    shared: _Shared,
) -> None:
    phases = [_Waits() for _ in range(3)]
    for call in calls:  # connects, and learns the partitions
        call()
    shared.ready.wait(timeout=120)
    while not shared.stop.is_set():
        for call in calls:
            began, at_first = time.perf_counter(), shared.phase.value
            try:
                call()
                error = None
            except StorageError as raised:
                error = f"{name}: {raised!r}"
            took, at_last = time.perf_counter() - began, shared.phase.value
            waits = phases[1 if 1 in (at_first, at_last) else at_last]
            waits.calls += 1
            waits.longest = max(waits.longest, took)
            waits.errors += [] if error is None else [error]
    shared.results.put((name, phases))


if __name__ == "__main__":
    main()
