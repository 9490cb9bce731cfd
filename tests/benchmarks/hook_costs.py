"""Measures what hooks cost: short calls and batches, without hooks and with each kind of hook.

All kinds take turns, so that the differences do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry
from rich.console import Console

from observatory_embedded import temporary_database
from observatory_storage import (
    CopyWriter,
    LoggingHook,
    OpenTelemetryHook,
    PostgresConfig,
    PrometheusHook,
    StorageConfig,
    StoragePool,
    StoreOperation,
)
from tests.benchmarks.measure import own_heap_frozen
from tests.benchmarks.output import Output
from tests.benchmarks.workload import wide_span_rows

__all__ = ["KINDS", "main"]


def _nothing(_: StoreOperation) -> None:
    pass


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("benchmark")
    logger.setLevel(logging.INFO)
    return logger


KINDS: Final[dict[str, Callable[[], list[Any]]]] = {
    "no hook": list,
    "empty function": lambda: [_nothing],
    "LoggingHook": lambda: [LoggingHook(logger=_quiet_logger())],
    "PrometheusHook": lambda: [PrometheusHook(CollectorRegistry())],
    "OpenTelemetryHook": lambda: [
        OpenTelemetryHook(MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False))
    ],
}
# Its name, the calls in a round, and a call.
Case = tuple[str, int, Callable[[StoragePool], object]]


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and print the medians of the calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="rounds of each kind")
    parser.add_argument("--calls", type=int, default=50, help="short calls in a round")
    parser.add_argument("--rows", type=int, default=1_000, help="rows of a batch")
    arguments = parser.parse_args(given)
    out = Output(Console(highlight=False))
    with temporary_database(os.environ.get("DATABASE_URL"), settings=None) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        pools = {kind: StoragePool(config, hooks=make()) for kind, make in KINDS.items()}
        try:
            pools["no hook"].run_migrations()
            for case in _cases(pools["no hook"], arguments.calls, arguments.rows):
                _compare(out, case, pools, arguments.rounds)
        finally:
            for pool in pools.values():
                pool.close()


def _cases(pool: StoragePool, calls: int, rows: int) -> Iterator[Case]:
    spans = list(wide_span_rows(1_000))
    CopyWriter(pool).write_spans(spans)
    known = spans[0]["trace_id"]
    numbers = itertools.count()

    def log(_: int) -> dict[str, Any]:
        return {
            "timestamp": spans[0]["start_time"],
            "body": f"message {next(numbers)}",
            "service_name": "shop",
        }

    def trace(pool: StoragePool) -> object:
        with pool.unit_of_work() as uow:
            return uow.traces.get_by_trace_id(known)

    def page(pool: StoragePool) -> object:
        with pool.unit_of_work() as uow:
            return uow.logs.list()

    yield "a trace by its id", calls, trace
    yield "write a log record", calls, lambda pool: CopyWriter(pool).write_logs([log(0)])
    yield "a page of 50 log records", calls, page
    batch = max(1, calls // 20)
    yield (
        f"write {rows:,} log records",
        batch,
        lambda pool: CopyWriter(pool).write_logs([log(n) for n in range(rows)]),
    )


def _compare(out: Output, case: Case, pools: dict[str, StoragePool], rounds: int) -> None:
    name, count, call = case
    walls: dict[str, list[float]] = {kind: [] for kind in pools}
    cpus: dict[str, list[float]] = {kind: [] for kind in pools}
    kinds = list(pools)
    with own_heap_frozen():
        for number in range(rounds + 1):
            turn = number % len(kinds)
            for kind in kinds[turn:] + kinds[:turn]:
                gc.collect()
                cpu, wall = time.process_time(), time.perf_counter()
                for _ in range(count):
                    call(pools[kind])
                if number:  # the first round warms up
                    walls[kind].append((time.perf_counter() - wall) / count * 1e6)
                    cpus[kind].append((time.process_time() - cpu) / count * 1e6)
    out.say(f"{name}: median of {rounds} rounds of {count} calls; CPU of the client")
    base = median(cpus["no hook"])
    for kind in kinds:
        wall, cpu = median(walls[kind]), median(cpus[kind])
        out.say(f"  {kind:18} {wall:10.1f} µs {cpu:10.1f} µs CPU {cpu - base:+8.1f} µs")


if __name__ == "__main__":
    main()
