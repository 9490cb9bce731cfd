"""Interleaved rounds: each round runs every technique, in a rotating order. Returns medians."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from sqlalchemy import text

from observatory_embedded import temporary_database
from observatory_storage import PostgresConfig, StorageConfig, StoragePool
from observatory_storage.storing.transaction import ensure_partitions
from tests.benchmarks.limit import LIMIT
from tests.benchmarks.technique import Run, Technique
from tests.benchmarks.workload import Workload

__all__ = [
    "Result",
    "compare",
    "empty",
    "migrated_pool",
    "own_heap_frozen",
    "percentile",
    "settle",
]

_EMPTIED: Final = {
    "trace_spans": "traces, trace_spans, trace_events, payload_frames",
    "metric_data_points": "metrics, metric_data_points",
    "logs": "logs, log_frames",
}


@contextmanager
def migrated_pool() -> Iterator[StoragePool]:
    """A pool on a new database of the server of ``DATABASE_URL``, or of an embedded one."""
    with (
        temporary_database(os.environ.get("DATABASE_URL"), settings=None) as url,
        StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url))) as pool,
    ):
        pool.run_migrations()
        yield pool


@dataclass(frozen=True)
class Result:
    """The medians of all rounds of one technique.

    Attributes:
        rows: rows written in a round, with `batch` rows in a transaction.
        rows_per_second: rows committed per second of wall-clock time.
        client_us: microseconds of CPU time of this process for each row, over all threads.
        ratio: the rate divided by that of the limit; the median of the ratios of all rounds.
        flush_p50_ms, flush_p95_ms: of all flushes in all rounds, if flushes are timed.
        flushes: the number of these flushes.
    """

    workload: str
    technique: str
    rows: int
    batch: int
    rounds: int
    rows_per_second: float
    client_us: float
    ratio: float
    flush_p50_ms: float | None
    flush_p95_ms: float | None
    flushes: int


@dataclass
class _Times:
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    flushes: list[float] = field(default_factory=list)


def compare(
    pool: StoragePool,
    load: Workload,
    techniques: Sequence[Technique],
    batch: int,
    rounds: int,
) -> list[Result]:
    """Write the workload by the limit and by each technique, `rounds` times in turn.

    Tables are emptied before each run. This is not timed.
    """
    ensure_partitions(pool, load.prepared)
    loads = {each.name: each.part_of(load) for each in (LIMIT, *techniques)}
    times = {name: _Times() for name in loads}
    with ExitStack() as stack:
        runs = {
            each.name: stack.enter_context(each.prepare(pool, loads[each.name], batch))
            for each in (LIMIT, *techniques)
        }
        stack.enter_context(own_heap_frozen())
        for turn in range(rounds + 1):
            names = list(runs)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                empty(pool, load.table)
                if turn:
                    _measure(runs[name], times[name])
                else:  # the first round warms up, and its row counts are checked
                    runs[name]()
                    _check(pool, loads[name], name)
    limit = [wall / len(load.rows) for wall in times[LIMIT.name].wall]
    return [_result(loads[name], name, batch, times[name], limit) for name in times]


def _measure(run: Run, times: _Times) -> None:
    gc.collect()
    started, used = time.perf_counter(), time.process_time()
    flushes = run()
    times.wall.append(time.perf_counter() - started)
    times.cpu.append(time.process_time() - used)
    times.flushes += flushes


def _check(pool: StoragePool, load: Workload, technique: str) -> None:
    with pool.engine.connect() as connection:
        found = connection.execute(text(f"SELECT count(*) FROM {load.table}")).scalar_one()
    if found != len(load.rows):
        raise AssertionError(f"{technique}: {found} of {len(load.rows)} rows were written")


def _result(load: Workload, name: str, batch: int, own: _Times, limit: list[float]) -> Result:
    count = len(load.rows)
    return Result(
        workload=load.name,
        technique=name,
        rows=count,
        batch=batch,
        rounds=len(own.wall),
        rows_per_second=count / median(own.wall),
        client_us=median(own.cpu) / count * 1e6,
        ratio=median(least * count / wall for least, wall in zip(limit, own.wall, strict=True)),
        flush_p50_ms=percentile(own.flushes, 0.5) * 1e3 if own.flushes else None,
        flush_p95_ms=percentile(own.flushes, 0.95) * 1e3 if own.flushes else None,
        flushes=len(own.flushes),
    )


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least this fraction of all values does not exceed."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def empty(pool: StoragePool, table: str) -> None:
    """Empty the table and the tables that depend on it, and make a checkpoint.

    Otherwise the next run would pay for the checkpoint. It is omitted without the privilege.
    """
    _and_checkpoint(pool, f"TRUNCATE {_EMPTIED[table]}")


def settle(pool: StoragePool, table: str) -> None:
    """Vacuum the table and the tables that depend on it, and make a checkpoint.

    Otherwise autovacuum would run during the next run. The checkpoint needs a privilege.
    """
    _and_checkpoint(pool, f"VACUUM (ANALYZE) {_EMPTIED[table]}")


def _and_checkpoint(pool: StoragePool, statement: str) -> None:
    with pool.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))
        may = text("SELECT pg_has_role(current_user, 'pg_checkpoint', 'usage')")
        if connection.execute(may).scalar_one():
            connection.execute(text("CHECKPOINT"))


@contextmanager
def own_heap_frozen() -> Iterator[None]:
    """Exclude the workloads from garbage collection, since an application has no such objects."""
    frozen = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:  # else objects that the caller has frozen would be searched again
            gc.unfreeze()
