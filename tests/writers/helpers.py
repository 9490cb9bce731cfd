"""Rows to write, and what the database then holds."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import sqlalchemy as sa

from observatory_storage.config import PoolConfig, PostgresConfig, RetryConfig, StorageConfig
from observatory_storage.models import Base
from observatory_storage.pool import StoragePool

QUICK = RetryConfig(max_attempts=10, initial_delay_ms=1, max_delay_ms=20)
ONCE = RetryConfig(max_attempts=1, initial_delay_ms=1, max_delay_ms=1)
TABLES = tuple(Base.metadata.tables)
START = datetime(2026, 3, 14, 15, 9, 26, 535897, tzinfo=UTC)
DEADLINE_SECS = 30.0

Row = dict[str, Any]


def quick_pool(url: str, retry: RetryConfig = QUICK, **postgres: Any) -> StoragePool:
    """A pool whose retries do not make a test wait."""
    return StoragePool(
        StorageConfig(
            postgres=PostgresConfig.from_url(url, **postgres),
            pool=PoolConfig(min_connections=0),
            retry=retry,
        )
    )


def trace_id(number: int) -> str:
    return f"{number:032x}"


def span_id(number: int) -> str:
    return f"{number:016x}"


def a_trace(number: int = 1, **columns: Any) -> Row:
    return {
        "trace_id": trace_id(number),
        "service_name": "shop",
        "start_time": START,
        **columns,
    }


def a_span(trace: int = 1, number: int = 1, **columns: Any) -> Row:
    start = START + timedelta(seconds=number)
    return {
        "trace_id": trace_id(trace),
        "span_id": span_id(number),
        "name": "operation",
        "service_name": "shop",
        "start_time": start,
        "end_time": start + timedelta(milliseconds=5),
        "status": "ok",
        **columns,
    }


def an_event(trace: int = 1, span: int = 1, position: int = 0, **columns: Any) -> Row:
    start = START + timedelta(seconds=span)
    return {
        "trace_id": trace_id(trace),
        "span_id": span_id(span),
        "span_start_time": start,
        "position": position,
        "name": "event",
        "timestamp": start,
        **columns,
    }


def event(name: str, **columns: Any) -> Row:
    """An event as its span carries it."""
    return {"name": name, "timestamp": START, **columns}


def a_metric(name: str = "requests", **columns: Any) -> Row:
    return {"name": name, "metric_type": "gauge", "service_name": "shop", **columns}


def a_point(metric: Any, seconds: int = 0, **columns: Any) -> Row:
    return {
        "metric_id": metric,
        "timestamp": START + timedelta(seconds=seconds),
        "value": 1.5,
        **columns,
    }


def a_log(seconds: int = 0, **columns: Any) -> Row:
    return {
        "timestamp": START + timedelta(seconds=seconds),
        "service_name": "shop",
        "body": "something happened",
        **columns,
    }


TIMES_OF_WRITING = frozenset({"created_at", "updated_at", "unsettled_since"})


def contents(pool: StoragePool, *, times_of_writing: bool = True) -> dict[str, list[str]]:
    """Each table's rows as PostgreSQL prints them, all columns, in one order."""
    found = {}
    with pool.engine.connect() as connection:
        quote = connection.dialect.identifier_preparer.quote
        for name, table in Base.metadata.tables.items():
            columns = [
                column.name
                for column in table.columns
                if times_of_writing or column.name not in TIMES_OF_WRITING
            ]
            listed = ", ".join(map(quote, columns))
            rows = connection.exec_driver_sql(
                f"SELECT ROW({listed})::text FROM {quote(pool.schema)}.{quote(name)} ORDER BY 1"
            )
            found[name] = [str(row) for row in rows.scalars()]
    return found


def count(pool: StoragePool, table: str) -> int:
    return len(contents(pool)[table])


def fetch(pool: StoragePool, model: type[Base], *order: str) -> list[Row]:
    """The table's rows as dicts, as the driver converts them."""
    table = model.__table__
    keys = order or tuple(column.name for column in table.primary_key)
    with pool.engine.connect() as connection:
        rows = connection.execute(sa.select(table).order_by(*(table.c[key] for key in keys)))
        return [dict(row) for row in rows.mappings()]


def empty(pool: StoragePool) -> None:
    with pool.engine.begin() as connection:
        quote = connection.dialect.identifier_preparer.quote
        names = ", ".join(f"{quote(pool.schema)}.{quote(name)}" for name in TABLES)
        connection.exec_driver_sql(f"TRUNCATE {names}")


@contextmanager
def locked(url: str, *tables: str) -> Iterator[None]:
    """Nobody else can write to these tables, nor wait for them any shorter."""
    with psycopg.connect(url) as connection:
        for table in tables:
            connection.execute(f"LOCK TABLE {table} IN SHARE MODE".encode())
        yield
        connection.rollback()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds.

    Raises:
        AssertionError: it does not within the deadline.
    """
    deadline = time.monotonic() + DEADLINE_SECS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


def fork(work: Callable[[], object]) -> int:
    """Run it in a child of this process; its id, for `wait_for`."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the child ends here whatever happens
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def wait_for(child: int) -> None:
    """Wait for a child, which must end well."""
    assert os.waitpid(child, 0)[1] == 0
