"""A database full enough for the planner to choose as it does in production.

Six days, each a partition, of which the newest is today's. As autovacuum leaves them: the
partitions are analysed, the tables that they belong to are not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import sqlalchemy as sa

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.partition_indexes import build_partition_indexes
from tests.repositories.samples import DAY, SECOND, Row, a_log, a_span, trace_key

DAYS = 6
TRACES = 6_000
SPANS_OF_A_TRACE = 10
LOGS = 24_000
POINTS = 12_000
METRICS = 10
SERVICES = 8

# Midnight, so that each day is a partition of its own, and all of them are near.
BUSY = timedelta(minutes=10)
FIRST = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - (DAYS - 1) * DAY
WORDS = [f"word{number}" for number in range(400)]

# A trace of the fourth day, and facts that few spans have.
TRACE = TRACES * 7 // 12
RARE_MODEL, RARE_USER, RARE_SESSION = "model7", "user77", "session77"
RARE_OPERATION = "operation9"
SERVICE = "service0"


def partition(table: str, day: int) -> str:
    """The name of a table's partition for a day, counted from the first."""
    return f"{table}_p{FIRST + day * DAY:%Y%m%d}"


def partitions(table: str, days: range = range(DAYS)) -> set[str]:
    return {partition(table, day) for day in days}


def start_of(trace: int) -> datetime:
    """Traces begin one after the other, as many each day; several run at any time."""
    day, number = divmod(trace, TRACES // DAYS)
    return FIRST + day * DAY + number * BUSY / (TRACES // DAYS)


def fill(pool: StoragePool) -> UUID:
    """Write all rows, index the days that are over, have all analysed; the id of a metric."""
    writer = CopyWriter(pool)
    writer.write_spans(spans())
    writer.write_logs(logs())
    writer.write_metrics(
        [
            {"name": f"metric{number}", "metric_type": "gauge", "service_name": SERVICE}
            for number in range(METRICS)
        ]
    )
    with pool.unit_of_work() as uow:
        metrics = [metric.id for metric in uow.metrics.list()]
    writer.write_data_points(points(metrics))
    build_partition_indexes(pool, grace=timedelta(0))
    analyse(pool)
    return metrics[3]


def spans() -> Iterator[Row]:
    rng = random.Random(5)
    for trace in range(TRACES):
        service = f"service{min(int(rng.expovariate(0.6)), SERVICES - 1)}"
        user, session = f"user{rng.randrange(300)}", f"session{rng.randrange(1500)}"
        for number in range(SPANS_OF_A_TRACE):
            start = start_of(trace) + number * SECOND
            row = a_span(trace + 1, trace * 100 + number + 1, start)
            row["name"] = f"operation{min(int(rng.expovariate(0.5)), 9)}"
            row["service_name"] = service
            row["status"] = "error" if rng.random() < 0.01 else "unset"
            row["end_time"] = start + int(rng.lognormvariate(12, 1)) * timedelta(microseconds=1)
            row["attributes"] = {"step": number, "key": rng.randrange(20_000), "text": "x" * 200}
            if number:
                row["parent_span_id"] = f"{trace * 100 + 1:016x}"
            if rng.random() < 0.3:
                row["model"] = f"model{min(int(rng.expovariate(0.8)), 7)}"
                row["provider"] = "provider"
                row["total_tokens"], row["total_cost_usd"] = rng.randrange(5000), 0.001
            if rng.random() < 0.02:
                row["attributes"]["gen_ai.prompt"] = " ".join(rng.choices(WORDS, k=20))
            if number == 0:
                row["user_id"], row["session_id"] = user, session
                row["events"] = [{"name": "event", "timestamp": start, "attributes": {"n": 1}}]
            yield row


def logs() -> Iterator[Row]:
    rng = random.Random(6)
    for number in range(LOGS):
        trace = number * TRACES // LOGS
        timestamp = start_of(trace) + rng.random() * SECOND
        row = a_log(number + 1, timestamp, severity_number=rng.choice([5, 9, 9, 9, 13, 17]))
        row["service_name"] = f"service{min(int(rng.expovariate(0.6)), SERVICES - 1)}"
        row["body"] = " ".join(rng.choices(WORDS, k=12)) + (
            " unheard" if number % 6001 == 0 else ""
        )
        row["attributes"] = {"key": number % 1000}
        if rng.random() < 0.5:
            row["trace_id"] = trace_key(trace + 1)
        yield row


def points(metrics: list[UUID]) -> Iterator[Row]:
    for number in range(POINTS):
        yield {
            "metric_id": metrics[number % METRICS],
            "timestamp": FIRST + number * (DAYS * DAY / POINTS),
            "value": float(number),
            "attributes": {"host": f"host{number % 7}"},
        }


def analyse(pool: StoragePool) -> None:
    """Vacuum and analyse every table that has rows of its own."""
    engine = pool.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        names = connection.scalars(
            sa.text("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r'")
        ).all()
        own = [name for name in names if not name.startswith(("pg_", "information_schema"))]
        connection.exec_driver_sql(f"VACUUM (ANALYZE) {', '.join(own)}")
