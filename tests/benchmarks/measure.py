"""Interleaved rounds: every technique in every round, in an order that turns, and medians."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from sqlalchemy import text

from observatory_storage import StoragePool
from observatory_storage.storing.transaction import ensure_partitions
from tests.benchmarks.limit import LIMIT
from tests.benchmarks.technique import Run, Technique
from tests.benchmarks.workload import Workload

__all__ = ["Result", "compare", "empty", "own_heap_frozen", "percentile", "settle"]

_EMPTIED: Final = {
    "trace_spans": "traces, trace_spans, trace_events",
    "metric_data_points": "metrics, metric_data_points",
    "logs": "logs",
}


@dataclass(frozen=True)
class Result:
    """Medians over the rounds, of one technique.

    Attributes:
        rows: rows that it writes in a round, `batch` of them a transaction.
        rows_per_second: rows committed in a second of wall-clock time.
        client_us: microseconds of this process's CPU a row, all threads together.
        ratio: of the limit's rate, the median of the rounds' own ratios.
        flush_p50_ms, flush_p95_ms: of all flushes in all rounds, where they can be told.
        flushes: how many those are.
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

    Tables are emptied before each run, outside the time.
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
                else:  # the first round warms up, and is looked at
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
    """The least value that at least this part of all values does not exceed."""
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def empty(pool: StoragePool, table: str) -> None:
    """Leave no row behind, nor work for the server that the next run would pay for.

    The table's companions are emptied too. Without the right to CHECKPOINT that is left out.
    """
    _and_checkpoint(pool, f"TRUNCATE {_EMPTIED[table]}")


def settle(pool: StoragePool, table: str) -> None:
    """Do now what autovacuum would do for the rows that are there, beside the next run.

    For the table and its companions; without the right to CHECKPOINT that is left out.
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
    """Keep the workloads, which an application would not hold, out of the garbage collections."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
