"""Spans to roll up, and what rollups answer beside what the spans themselves answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from observatory_storage import CopyWriter, Exists, Not, Prefix, UnitOfWork
from observatory_storage.lifecycle.rollups import refresh_rollups
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import Base, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.tables import ROLLUP_TABLES
from tests.writers.helpers import Row, trace_id

DAY = datetime(2026, 3, 14, tzinfo=UTC)
LATER = DAY + timedelta(days=3)
HOUR = timedelta(hours=1)

# The bound that the documentation states, and room for the last digits of a double.
BOUND = (2 ** (2**-5) - 1) / (2 ** (2**-5) + 1) + 1e-9

Question = Callable[..., list[Any]]


def questions(start: datetime | None, end: datetime | None) -> list[tuple[str, Question]]:
    """Exact questions by name. Each takes a unit of work and the source."""

    def costs(**arguments: Any) -> Question:
        return lambda uow, source: uow.metrics.get_cost_summary(
            start, end, source=source, **arguments
        )

    found: dict[str, Question] = {
        "total": costs(group_by=()),
        "models": costs(),
        "hours": costs(bucket_size_secs=3600, group_by="service_name"),
        "five minutes": costs(bucket_size_secs=300, group_by=("operation", "environment")),
        "days": costs(bucket_size_secs="day", group_by="model", service_name=Not("shop")),
        "first": costs(bucket_size_secs="day", group_by="model", limit=1),
        "users": costs(group_by=("user_id", "model"), user_id=Exists(), bucket_size_secs="day"),
        "a user": costs(group_by="provider", user_id="ada"),
        "sessions": costs(group_by="session_id"),
        "usage": lambda uow, source: uow.metrics.get_user_usage(
            start_time=start, end_time=end, source=source
        ),
        "usage by hour": lambda uow, source: uow.metrics.get_user_usage(
            Prefix("a"), start, end, bucket_size_secs=3600, source=source
        ),
        "active": lambda uow, source: uow.metrics.get_active_users(start, end, source=source),
        "errors": lambda uow, source: uow.metrics.get_error_summary(start, end, source=source),
    }
    if start is not None and end is not None:
        for zone in ("Asia/Tokyo", "Asia/Kolkata", "America/New_York"):
            found[zone] = costs(bucket_size_secs="day", time_zone=zone, group_by=())
            found[f"active in {zone}"] = lambda uow, source, zone=zone: (
                uow.metrics.get_active_users(start, end, time_zone=zone, source=source)
            )
    return list(found.items())


def without_source(rows: Iterable[Any]) -> list[Any]:
    return [dataclasses.replace(row, source="raw") for row in rows]


def check_answers(uow: UnitOfWork, start: datetime | None, end: datetime | None) -> set[str]:
    """All questions have the same answers with rollups as without; return the sources."""
    sources = set()
    with_spans = uow.session.scalars(sa.select(TraceSpan.service_name).distinct())
    assert uow.traces.services() == sorted(with_spans)
    for name, ask in questions(start, end):
        rolled, raw = ask(uow, "auto"), ask(uow, "raw")
        assert without_source(rolled) == raw, name
        sources |= {row.source for row in rolled}
    for arguments in (
        {},
        {"service_name": "shop"},
        {"service_name": Not("shop"), "bucket_size_secs": 900},
        {"operation": "chat", "bucket_size_secs": "day"},
        {"service_name": "shop", "operation": "chat", "bucket_size_secs": 86400},
    ):
        rolled = uow.metrics.get_latency_percentiles(start, end, **arguments)
        raw = uow.metrics.get_latency_percentiles(start, end, source="raw", **arguments)
        assert [(row.timestamp, row.span_count) for row in rolled] == [
            (row.timestamp, row.span_count) for row in raw
        ]
        for one, exact in zip(rolled, raw, strict=True):
            for percentile in ("p50_us", "p90_us", "p95_us", "p99_us"):
                expected = getattr(exact, percentile)
                bound = 0 if one.source == "raw" else expected * BOUND
                assert abs(getattr(one, percentile) - expected) <= bound
        sources |= {row.source for row in rolled}
    return sources


def refresh(pool: StoragePool, now: datetime) -> None:
    assert refresh_rollups(Run(pool, now=now), grace=timedelta(0)).is_complete


def rollups(pool: StoragePool) -> dict[str, list[str]]:
    """The rows of all rollups, without their positions."""
    found = {}
    with pool.engine.connect() as connection:
        for name in sorted(ROLLUP_TABLES - {"span_changes", "rollup_state"}):
            columns = ", ".join(
                f"trim_scale({column.name})"
                if isinstance(column.type, sa.Numeric) and not isinstance(column.type, sa.Double)
                else column.name
                for column in Base.metadata.tables[name].columns
                if column.name != "position"
            )
            rows = connection.exec_driver_sql(f"SELECT ROW({columns})::text FROM {name} ORDER BY 1")
            found[name] = [str(row) for row in rows.scalars()]
    return found


def forget_rollups(pool: StoragePool) -> None:
    names = ", ".join(sorted(ROLLUP_TABLES))
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(f"TRUNCATE {names}")


def a_span(number: int, start: datetime = DAY, **columns: Any) -> Row:
    return {
        "trace_id": trace_id(number),
        "span_id": f"{number:016x}",
        "name": "chat",
        "service_name": "shop",
        "start_time": start,
        "duration_us": 1000 * number,
        "model": "gpt-4o",
        "total_tokens": 10,
        "total_cost_usd": Decimal("0.01"),
        "user_id": "ada",
        "session_id": "s1",
        **columns,
    }


def write(pool: StoragePool, *rows: Row) -> None:
    CopyWriter(pool).write_spans(rows)


def tokens(pool: StoragePool, **arguments: Any) -> tuple[int | None, str]:
    with pool.unit_of_work() as uow:
        (row,) = uow.metrics.get_cost_summary(group_by=(), **arguments)
        return row.total_tokens, row.source
