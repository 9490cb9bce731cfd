"""Measures questions without a time range in stores of 10 and of 400 daily partitions.

Both stores are asked in turn, so that the ratio does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, Final

from rich.console import Console

from observatory_embedded import temporary_database
from observatory_storage import CopyWriter, PostgresConfig, StorageConfig, StoragePool, UnitOfWork
from observatory_storage.layout import Range
from observatory_storage.lifecycle.rollups import refresh_rollups
from observatory_storage.lifecycle.run import Run
from observatory_storage.partition_catalog import attach, create_like
from tests.benchmarks.output import Output

_DAY: Final = timedelta(days=1)
_TABLES: Final = ("trace_spans", "trace_events", "logs")
_SPANS: Final = 100

QUESTIONS: Final[dict[str, Callable[[UnitOfWork], Any]]] = {
    "newest traces": lambda uow: uow.traces.list(),
    "traces of a user": lambda uow: uow.traces.list(user_id="user3"),
    "traces of a user, 20": lambda uow: uow.traces.list(user_id="user3", limit=20),
    "traces of an unknown user": lambda uow: uow.traces.list(user_id="nobody"),
    "traces of a session": lambda uow: uow.traces.list(session_id="session2-2"),
    "traces of a model": lambda uow: uow.traces.list(model="model"),
    "traces of a service": lambda uow: uow.traces.list(service_name="service1"),
    "failed traces": lambda uow: uow.traces.list(status="error"),
    "newest spans": lambda uow: uow.traces.list_spans(),
    "spans of a user": lambda uow: uow.traces.list_spans(user_id="user3"),
    "services": lambda uow: uow.traces.services(),
    "operations": lambda uow: uow.traces.operations("service1"),
    "sessions": lambda uow: uow.traces.list_sessions(),
    "a session": lambda uow: uow.traces.get_session("session2-2"),
    "newest logs": lambda uow: uow.logs.list(),
    "logs of a service": lambda uow: uow.logs.list(service_name="service1"),
    "logs with a word": lambda uow: uow.logs.search_text("word"),
}


def main(given: Sequence[str] | None = None) -> None:
    """Fill the stores, ask, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, nargs=2, default=(10, 400), help="partitions of each")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--without-rollups", action="store_true", help="never refresh rollups")
    arguments = parser.parse_args(given)
    out = Output(Console(highlight=False))
    with ExitStack() as stack:
        pools = []
        for days in arguments.days:
            server = os.environ.get("DATABASE_URL")
            url = stack.enter_context(temporary_database(server, settings=None, in_memory=True))
            config = StorageConfig(postgres=PostgresConfig.from_url(url))
            pool = stack.enter_context(StoragePool(config))
            pool.run_migrations()
            fill(pool, days, has_rollups=not arguments.without_rollups)
            pools.append(pool)
        few, many = arguments.days
        out.say(f"p50 in ms of {arguments.repeats}: {few} and {many} partitions, ratio")
        for name, ask in QUESTIONS.items():
            one, other = (1000 * each for each in _medians(pools, ask, arguments.repeats))
            out.say(f"{name:26} {one:8.2f} {other:8.2f} {other / one:6.2f}")


def fill(pool: StoragePool, days: int, *, has_rollups: bool) -> None:
    """Write a hundred spans and log records for each day up to yesterday, which has a partition."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    writer = CopyWriter(pool)
    for number in range(days):
        day = today - (number + 1) * _DAY
        with pool.engine.begin() as connection:
            for table in _TABLES:
                # By itself, a writer would make partitions of months for days that are long past.
                wanted = Range(day, day + _DAY, f"p{day:%Y%m%d}")
                name = f"{table}_{wanted.suffix}"
                create_like(connection, pool.schema, table, name)
                attach(connection, pool.schema, table, name, wanted)
        pool.partitions.forget()
        spans = [_span(number, place, day) for place in range(_SPANS)]
        writer.write_spans(spans)
        writer.write_logs(
            {
                "timestamp": span["start_time"],
                "body": "a word",
                "service_name": span["service_name"],
            }
            for span in spans
        )
    if has_rollups:
        refresh_rollups(Run(pool))
    engine = pool.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE")


def _span(number: int, place: int, day: datetime) -> dict[str, Any]:
    trace, start = place // 4, day + place * timedelta(minutes=10)
    return {
        "trace_id": f"{number * 1_000 + trace + 1:032x}",
        "span_id": f"{number * 1_000 + place + 1:016x}",
        "name": f"operation{place % 5}",
        "service_name": f"service{place % 4}",
        "start_time": start,
        "end_time": start + timedelta(seconds=3),
        "user_id": f"user{trace % 10}",
        "session_id": f"session{number}-{place // 10}",
        "status": "ok" if place % 10 else "error",
        "model": "model",
        "total_tokens": 5,
    }


def _medians(
    pools: Sequence[StoragePool], ask: Callable[[UnitOfWork], Any], repeats: int
) -> list[float]:
    times: list[list[float]] = [[] for _ in pools]
    for _ in range(repeats + 2):
        for pool, taken in zip(pools, times, strict=True):
            begun = time.perf_counter()
            with pool.unit_of_work() as uow:
                ask(uow)
            taken.append(time.perf_counter() - begun)
    return [median(taken[2:]) for taken in times]


if __name__ == "__main__":
    main()
