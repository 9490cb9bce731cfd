"""Measures rollups: what keeping them fresh costs the writers, and how fast they answer."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Final

from rich.console import Console
from sqlalchemy import text

from observatory_embedded import temporary_database
from observatory_storage import CopyWriter, PostgresConfig, StorageConfig, StoragePool, UnitOfWork
from observatory_storage.lifecycle.rollups import refresh_rollups
from observatory_storage.lifecycle.run import Run
from observatory_storage.tables import ROLLUP_TABLES
from tests.benchmarks.measure import empty, own_heap_frozen
from tests.benchmarks.output import Output
from tests.benchmarks.workload import batches, wide_spans

_BATCH: Final = 1_000
_START: Final = datetime(2026, 3, 14, tzinfo=UTC)
_REPEATS: Final = 9


def main(given: Sequence[str] | None = None) -> None:
    """Measure what the arguments name, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["fresh", "reading"])
    parser.add_argument("--spans", type=int, default=100_000, help="spans of a round, or stored")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds-a-batch",
        type=int,
        default=3,
        help="time passes faster than on the wall: the starts of 1,000 spans cover so many seconds."
        " With 3, at 20 batches a second, each refresh finds a minute that is over; with 30 hours"
        " end during a round too, and rollups have more groups for each span",
    )
    parser.add_argument("--days", type=int, default=90, help="days that the stored spans cover")
    arguments = parser.parse_args(given)
    out = Output(Console(highlight=False))
    with (
        temporary_database(os.environ.get("DATABASE_URL"), settings=None, in_memory=False) as url,
        StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url))) as pool,
    ):
        pool.run_migrations()
        if arguments.part == "fresh":
            fresh(
                pool,
                url,
                out,
                spans=arguments.spans,
                rounds=arguments.rounds,
                seconds=arguments.seconds_a_batch,
            )
        else:
            reading(pool, arguments.spans, arguments.days, out)


def fresh(
    pool: StoragePool, url: str, out: Output, *, spans: int, rounds: int, seconds: int
) -> None:
    """Write the same spans with and without a process that refreshes rollups every second."""
    parts = batches(wide_spans(spans).rows, _BATCH)
    for number, part in enumerate(parts):
        for place, row in enumerate(part):
            start = _START + timedelta(seconds=seconds * (number + place / _BATCH))
            row["end_time"] = start + (row["end_time"] - row["start_time"])
            row["start_time"] = start
    pool.partitions.ensure("trace_spans", [_START, _START + timedelta(days=1)])
    times: dict[bool, list[float]] = {False: [], True: []}
    lags = []
    with own_heap_frozen():
        for turn in range(2 * (rounds + 1)):
            is_fresh = bool(turn % 2) ^ bool(turn // 2 % 2)
            took, lag = _round(pool, url, parts, seconds, is_fresh=is_fresh)
            if turn > 1:  # the first ones warm up
                times[is_fresh].append(took)
                lags += [lag] if is_fresh else []
    rates = {each: spans / median(took) for each, took in times.items()}
    out.say(
        f"{rates[False]:,.0f} spans/s without rollups, {rates[True]:,.0f} with, {rounds} rounds"
    )
    ratios = [a / b for a, b in zip(times[False], times[True], strict=True)]
    out.say(f"ratio of the rates: {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    out.say(f"to finish all hours and the day afterwards: {median(lags):.2f} s")


def _round(
    pool: StoragePool, url: str, parts: Sequence[Sequence[Any]], seconds: int, *, is_fresh: bool
) -> tuple[float, float]:
    empty(pool, "trace_spans")
    with pool.engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(ROLLUP_TABLES)}"))
    context = multiprocessing.get_context("spawn")
    clock, stop = context.Value("d", 0.0), context.Event()
    refresher = context.Process(target=_refresh, args=(url, clock, stop))
    if is_fresh:
        refresh_rollups(Run(pool, now=_START))
        refresher.start()
        while not clock.value:  # until it has connected
            time.sleep(0.05)
    writer = CopyWriter(pool)
    started = time.perf_counter()
    for number, part in enumerate(parts):
        writer.write_spans(part)
        clock.value = 1 + number * seconds
    took = time.perf_counter() - started
    if is_fresh:
        stop.set()
        refresher.join()
    return took, time.perf_counter() - started - took


def _refresh(url: str, clock: Any, stop: Any) -> None:
    """Refresh every second, until the writer stops."""
    with StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url))) as pool:
        clock.value = 1.0
        while not stop.wait(1.0):
            refresh_rollups(Run(pool, now=_START + timedelta(seconds=clock.value)))
        refresh_rollups(Run(pool, now=_START + timedelta(days=3)))


def reading(pool: StoragePool, spans: int, days: int, out: Output) -> None:
    """Ask for costs, percentiles, users and errors, with rollups and without."""
    end = _START + timedelta(hours=15, minutes=9, seconds=26)
    first = end - timedelta(days=days)
    pool.partitions.ensure("trace_spans", [first + timedelta(days=day) for day in range(days + 1)])
    started = time.perf_counter()
    with pool.engine.begin() as connection:
        step = timedelta(days=days) / spans
        connection.execute(text(_SPANS), {"first": first, "step": step, "count": spans})
    with pool.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) trace_spans"))
    out.say(f"{spans:,} spans of {days} days in {time.perf_counter() - started:.0f} s")
    started = time.perf_counter()
    done = refresh_rollups(Run(pool, now=end))
    out.say(f"{done} in {time.perf_counter() - started:.0f} s")
    with pool.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM (ANALYZE) {', '.join(ROLLUP_TABLES)}"))
        for name in sorted(ROLLUP_TABLES):
            size = f"SELECT count(*), pg_total_relation_size('{name}') FROM {name}"
            rows, size_bytes = connection.execute(text(size)).one()
            out.say(f"{name}: {rows:,} rows, {size_bytes / 1e6:.1f} MB")
    month = end.replace(day=1, hour=0, minute=0, second=0)
    questions: dict[str, Callable[[UnitOfWork, Any], list[Any]]] = {
        "cost by day and model over 90 days": lambda uow, source: uow.metrics.get_cost_summary(
            end - timedelta(days=90), end, group_by="model", bucket_size_secs="day", source=source
        ),
        "p95 by hour over 30 days": lambda uow, source: uow.metrics.get_latency_percentiles(
            end - timedelta(days=30), end, source=source
        ),
        "p95 by hour of a service": lambda uow, source: uow.metrics.get_latency_percentiles(
            end - timedelta(days=30), end, service_name="service1", source=source
        ),
        "spend of a user this month": lambda uow, source: uow.metrics.get_user_usage(
            "user17", month, end, source=source
        ),
        "users with the highest spend": lambda uow, source: uow.metrics.get_user_usage(
            start_time=month, end_time=end, limit=10, source=source
        ),
        "users a day over 30 days": lambda uow, source: uow.metrics.get_active_users(
            end - timedelta(days=30), end, source=source
        ),
        "errors of 30 days": lambda uow, source: uow.metrics.get_error_summary(
            end - timedelta(days=30), end, source=source
        ),
    }
    for name, ask in questions.items():
        rolled, raw = _timed(pool, ask, "auto", _REPEATS), _timed(pool, ask, "raw", 1)
        out.say(f"{name}: {rolled * 1e3:.1f} ms, from spans {raw * 1e3:,.0f} ms")


def _timed(pool: StoragePool, ask: Callable[[UnitOfWork, Any], Any], source: str, n: int) -> float:
    times = []
    for _ in range(n):
        with pool.unit_of_work() as uow:
            started = time.perf_counter()
            ask(uow, source)
            times.append(time.perf_counter() - started)
    return median(times)


_SPANS: Final = """
    INSERT INTO trace_spans (trace_id, span_id, name, service_name, start_time, end_time,
        duration_us, status, provider, model, operation, environment, user_id, session_id,
        error_type, prompt_tokens, completion_tokens, total_tokens, total_cost_usd)
    SELECT gen_random_uuid(), lpad(to_hex(n + 1), 16, '0'), 'operation' || n % 7,
        'service' || n % 4, start, start + took * interval '1 microsecond', took,
        CASE WHEN n % 50 = 0 THEN 'error' ELSE 'ok' END,
        CASE WHEN n % 7 < 3 THEN 'provider' || n % 3 END,
        CASE WHEN n % 7 < 3 THEN 'model' || n % 3 || '-' || n % 2 END,
        CASE WHEN n % 7 < 3 THEN 'chat' END,
        CASE WHEN n % 5 = 0 THEN 'staging' ELSE 'production' END,
        'user' || n / 10 % 2003, 'session' || n / 40,
        CASE WHEN n % 50 = 0 THEN 'Timeout' END,
        CASE WHEN n % 7 < 3 THEN 100 + n % 1000 END, CASE WHEN n % 7 < 3 THEN n % 300 END,
        CASE WHEN n % 7 < 3 THEN 100 + n % 1000 + n % 300 END,
        CASE WHEN n % 7 < 3 THEN (n % 1000)::numeric / 100000 END
    FROM (SELECT n, CAST(:first AS timestamptz) + n * CAST(:step AS interval) AS start,
              exp(8 + 2 * sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random()))::bigint AS took
          FROM generate_series(0, CAST(:count AS bigint) - 1) AS n) AS spans
"""

if __name__ == "__main__":
    main()
