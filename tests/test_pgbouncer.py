"""All features through pgbouncer in transaction mode, in which clients share sessions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from observatory_storage import migrate
from observatory_storage.config import PoolConfig, PostgresConfig, StorageConfig
from observatory_storage.models import TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.repositories import TraceFilters
from observatory_storage.writers import CopyWriter, TraceWriter
from tests.bouncers import MISSING, PROGRAM, pgbouncer

MOMENT = datetime(2024, 5, 17, 1, 2, 3, 456789, tzinfo=UTC)

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)


@pytest.fixture
def bouncer_url(empty_database_url: str) -> Iterator[str]:
    """The URL of an empty database behind a pgbouncer that has two connections to it."""
    with pgbouncer(empty_database_url, connections=2) as url:
        yield url


def pool_on(url: str, **postgres: object) -> StoragePool:
    return StoragePool(
        StorageConfig(
            postgres=PostgresConfig.from_url(url, **postgres),
            pool=PoolConfig(max_connections=4, min_connections=3),
        )
    )


def a_span(number: int) -> TraceSpan:
    return TraceSpan(
        trace_id=UUID(int=number // 10 + 1),
        span_id=f"{number + 1:016x}",
        name="chat",
        service_name="service",
        start_time=MOMENT + timedelta(seconds=number),
        end_time=MOMENT + timedelta(seconds=number + 1),
        attributes={"number": number},
    )


def test_migrating_writing_and_reading_work(bouncer_url: str, empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as direct:
        name = direct.execute("SELECT quote_ident(current_database())").fetchone()
        assert name is not None
        for setting in ("timezone TO 'Asia/Kolkata'", "search_path TO nowhere"):
            direct.execute(f"ALTER DATABASE {name[0]} SET {setting}".encode())
    with pool_on(bouncer_url, schema="obs") as pool:
        pool.run_migrations()
        assert migrate.current(pool.engine, "obs") == migrate.head()
        CopyWriter(pool).write_spans([a_span(number) for number in range(20)])
        with TraceWriter(pool) as writer:
            writer.write_spans([a_span(number) for number in range(10, 40)])
        # More rounds than psycopg needs before it prepares a statement, on changing connections.
        for _ in range(12):
            with pool.unit_of_work() as one, pool.unit_of_work() as other:
                for uow in (one, other):
                    page = uow.traces.list(TraceFilters(service_name="service"))
                    assert [trace.span_count for trace in page] == [10] * 4
                    assert {trace.start_time.tzinfo for trace in page} == {UTC}
                    spans = uow.traces.get_spans(page[-1].id)
                    assert [span.start_time for span in spans] == [
                        MOMENT + timedelta(seconds=number) for number in range(10)
                    ]
        assert pool.health_check().status == "healthy"


def test_concurrent_migrations_run_once(bouncer_url: str) -> None:
    with pool_on(bouncer_url) as first, pool_on(bouncer_url) as second:
        errors: list[Exception] = []

        def work(pool: StoragePool) -> None:
            try:
                pool.run_migrations()
            except Exception as error:  # noqa: BLE001 - shown by the assertion below
                errors.append(error)

        threads = [
            threading.Thread(target=work, args=(pool,)) for pool in (first, second, first, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert errors == []
        assert migrate.pending(first.engine) == []


def test_settings_of_one_pool_do_not_affect_another(bouncer_url: str) -> None:
    with pool_on(bouncer_url, statement_timeout_ms=4321) as strict, pool_on(bouncer_url) as lax:
        for _ in range(5):
            # Both hold a connection, then both release it, so each may get that of the other.
            with strict.engine.connect() as one, lax.engine.connect() as two:
                assert one.scalar(sa.text("SHOW statement_timeout")) == "4321ms"
                assert two.scalar(sa.text("SHOW statement_timeout")) == "0"
            with lax.engine.connect() as one, strict.engine.connect() as two:
                assert one.scalar(sa.text("SHOW statement_timeout")) == "0"
                assert two.scalar(sa.text("SHOW statement_timeout")) == "4321ms"
