"""Interleaved rounds: every technique in every round, in an order that turns, and medians."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from statistics import median

from sqlalchemy import text

from observatory_storage import StoragePool
from observatory_storage.writers.batch import ensure_partitions
from tests.benchmarks.techniques import LIMIT, Technique
from tests.benchmarks.workload import Workload

_TABLES = "traces, trace_spans, trace_events, metrics, metric_data_points, logs"


@dataclass(frozen=True)
class Result:
    """Medians over the rounds.

    Attributes:
        rows_per_second: rows committed in a second of wall-clock time.
        client_us: microseconds of this process's CPU a row.
        ratio: of the limit's rate, the median of the rounds' own ratios.
    """

    workload: str
    technique: str
    rows: int
    batch: int
    rounds: int
    rows_per_second: float
    client_us: float
    ratio: float


def compare(
    pool: StoragePool, load: Workload, techniques: tuple[Technique, ...], batch: int, rounds: int
) -> list[Result]:
    """Write the workload by the limit and by each technique, `rounds` times in turn."""
    everyone = (LIMIT, *techniques)
    ensure_partitions(pool, load.prepared)
    runs = {technique.name: technique.prepare(pool, load, batch) for technique in everyone}
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        names = list(runs)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            _empty(pool)
            gc.collect()
            started, used = time.perf_counter(), time.process_time()
            runs[name]()
            elapsed, used = time.perf_counter() - started, time.process_time() - used
            if turn:  # the first round only warms up
                wall[name].append(elapsed)
                cpu[name].append(used)
    count = len(load.rows)
    return [
        Result(
            load.name,
            name,
            count,
            batch,
            rounds,
            count / median(wall[name]),
            median(cpu[name]) / count * 1e6,
            median(a / b for a, b in zip(wall[LIMIT.name], wall[name], strict=True)),
        )
        for name in runs
    ]


def _empty(pool: StoragePool) -> None:
    with pool.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"TRUNCATE {_TABLES}"))
        connection.execute(text("CHECKPOINT"))
