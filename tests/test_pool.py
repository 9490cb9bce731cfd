"""The pool: how it connects, what bounds it, what it replaces, and what survives a fork."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from observatory_embedded import EmbeddedPostgres
from observatory_storage.config import (
    PoolConfig,
    PostgresConfig,
    RedisConfig,
    RetryConfig,
    StorageConfig,
)
from observatory_storage.errors import (
    ConnectionLost,
    PoolError,
    Timeout,
)
from observatory_storage.pool import StoragePool

PATIENT = RetryConfig(max_attempts=20, initial_delay_ms=1, max_delay_ms=50)


def config_for(url: str, **sections: Any) -> StorageConfig:
    return StorageConfig(postgres=PostgresConfig.from_url(url), **sections)


@contextmanager
def pool_on(url: str, **pool: Any) -> Iterator[StoragePool]:
    with StoragePool(config_for(url, pool=PoolConfig(**pool))) as made:
        yield made


def backend(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def backend_of(pool: StoragePool) -> int:
    with pool.engine.connect() as connection:
        return backend(connection)


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def application(database_url: str) -> Iterator[sa.Engine]:
    """An engine of an application."""
    engine = sa.create_engine("postgresql+psycopg://" + database_url.partition("://")[2])
    yield engine
    engine.dispose()


# Connecting


def test_the_minimum_is_opened_at_the_start(database_url: str) -> None:
    with pool_on(database_url, min_connections=3, max_connections=4) as pool:
        stats = pool.stats()
        assert (stats.size, stats.idle, stats.active) == (3, 3, 0)
        assert (stats.min, stats.max) == (3, 4)


def test_stats_count_what_is_in_use(database_url: str) -> None:
    with pool_on(database_url, min_connections=2, max_connections=5) as pool:
        with ExitStack() as connections:
            for _ in range(3):
                connections.enter_context(pool.engine.connect())
            stats = pool.stats()
            assert (stats.size, stats.idle, stats.active) == (3, 0, 3)
            assert stats.utilization == pytest.approx(0.6)
            assert not stats.near_capacity
            connections.enter_context(pool.engine.connect())
            assert pool.stats().near_capacity
        stats = pool.stats()
        assert (stats.size, stats.idle, stats.active, stats.utilization) == (4, 4, 0, 0.0)


def test_pool_can_connect_at_first_use(database_url: str) -> None:
    with StoragePool(config_for(database_url), connect=False) as pool:
        assert pool.stats().size == 0
        assert backend_of(pool) > 0
        assert pool.stats().size == 1


def test_from_env(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("DB_POOL_MAX_CONNECTIONS", "2")
    with StoragePool.from_env() as pool:
        assert pool.stats().max == 2
        assert pool.schema == "public"
        assert pool.redis is None


@contextmanager
def started_after(server: EmbeddedPostgres, failures: int) -> Iterator[list[str]]:
    """Start the stopped server when this many failed attempts to connect have been logged."""
    seen: list[str] = []

    class Starter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())
            if len(seen) == failures:
                server.start()

    log, handler = logging.getLogger("observatory_storage.engine"), Starter()
    log.addHandler(handler)
    try:
        yield seen
    finally:
        log.removeHandler(handler)


def test_connecting_is_retried_until_the_server_answers(embedded_server: EmbeddedPostgres) -> None:
    embedded_server.stop()
    config = config_for(embedded_server.url, retry=PATIENT)
    with started_after(embedded_server, 2) as failed, StoragePool(config) as pool:
        assert backend_of(pool) > 0
    assert len(failed) >= 2
    assert "PostgreSQL cannot be reached, attempt 1 of 20, next in 0.00 s" in failed[0]


def test_connecting_at_first_use_is_retried(embedded_server: EmbeddedPostgres) -> None:
    embedded_server.stop()
    with StoragePool(config_for(embedded_server.url, retry=PATIENT), connect=False) as pool:
        with started_after(embedded_server, 2) as failed, pool.unit_of_work() as uow:
            assert uow.session.scalar(sa.text("SELECT 1")) == 1
        assert len(failed) >= 2


def test_pool_recovers_from_a_restart_of_the_server(embedded_server: EmbeddedPostgres) -> None:
    with StoragePool(config_for(embedded_server.url, retry=PATIENT)) as pool:
        before = backend_of(pool)
        embedded_server.kill()
        embedded_server.start()
        assert backend_of(pool) != before


def test_connecting_fails_after_the_configured_attempts(caplog: pytest.LogCaptureFixture) -> None:
    retry = RetryConfig(max_attempts=3, initial_delay_ms=1, max_delay_ms=2)
    with pytest.raises(ConnectionLost, match="refused") as caught:
        StoragePool(config_for("postgresql://u@127.0.0.1:1/none", retry=retry))
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, sa.exc.OperationalError)
    assert isinstance(caught.value.__cause__.orig, psycopg.OperationalError)
    attempts = [record for record in caplog.records if "cannot be reached" in record.message]
    assert len(attempts) == 2


def test_secrets_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = StorageConfig(
        postgres=PostgresConfig.from_url("postgresql://user:hunter2%40secret@127.0.0.1:1/none"),
        redis=RedisConfig(url=SecretStr("redis://:redis2secret@127.0.0.1:1/0")),
        retry=RetryConfig(max_attempts=2, initial_delay_ms=1),
    )
    with StoragePool(config, connect=False) as pool:
        shown = [repr(pool), str(pool), repr(vars(pool)), repr(pool.health_check())]
        with pytest.raises(ConnectionLost) as caught, pool.unit_of_work() as uow:
            uow.session.scalar(sa.text("SELECT 1"))
    shown.append("".join(traceback.format_exception(caught.value)))
    with pytest.raises(ConnectionLost) as caught:
        StoragePool(config)
    shown += ["".join(traceback.format_exception(caught.value)), repr(caught.value), caplog.text]
    for text in shown:
        assert "hunter2" not in text
        assert "redis2secret" not in text
    assert "user:***@127.0.0.1:1/none schema='public'" in shown[0]


# Bounds


def test_the_maximum_is_a_hard_bound(database_url: str) -> None:
    with pool_on(database_url, max_connections=2, acquire_timeout_secs=0.05) as pool:
        with pool.engine.connect(), pool.engine.connect():
            with pytest.raises(PoolError) as caught, pool.unit_of_work() as uow:
                uow.session.scalar(sa.text("SELECT 1"))
            assert str(caught.value) == (
                "no connection became free in 0.05 s (acquire_timeout_secs):"
                " all 2 (max_connections) are in use"
            )
            assert caught.value.retryable
            assert isinstance(caught.value.__cause__, sa.exc.TimeoutError)
        assert backend_of(pool) > 0


def test_waiting_caller_gets_the_returned_connection(database_url: str) -> None:
    with pool_on(database_url, max_connections=1) as pool:
        taken = pool.engine.connect()
        first = backend(taken)
        found: list[int] = []
        waiter = threading.Thread(target=lambda: found.append(backend_of(pool)))
        waiter.start()
        assert found == []
        taken.close()
        waiter.join(timeout=20)
        assert found == [first]


def test_a_closed_pool_gives_no_connection(database_url: str) -> None:
    with pool_on(database_url, min_connections=2) as pool:
        held = pool.engine.connect()
        pool.close()
        assert backend(held) > 0
        held.close()
        assert pool.stats().size == 0
        for use in (pool.unit_of_work, pool.engine.connect, pool.run_migrations):
            with pytest.raises(PoolError, match="the pool is closed") as caught:
                use()
            assert not caught.value.retryable
        pool.close()


# Replacing


def test_old_connections_are_replaced(database_url: str) -> None:
    with pool_on(database_url, min_connections=1, max_lifetime_secs=0.05) as pool:
        first = backend_of(pool)
        eventually(lambda: backend_of(pool) != first)
        assert pool.stats().size == 1


def test_connections_within_their_lifetime_are_kept(database_url: str) -> None:
    with pool_on(database_url, min_connections=1) as pool:
        assert len({backend_of(pool) for _ in range(20)}) == 1


def test_idle_connection_is_replaced_at_checkout(database_url: str) -> None:
    with pool_on(database_url, min_connections=1, idle_timeout_secs=0.02) as pool:
        first = backend_of(pool)
        time.sleep(0.03)
        assert backend_of(pool) != first


def test_idle_connections_above_the_minimum_are_closed(database_url: str) -> None:
    with pool_on(
        database_url, min_connections=2, max_connections=6, idle_timeout_secs=0.05
    ) as pool:
        with ExitStack() as connections:
            for _ in range(6):
                connections.enter_context(pool.engine.connect())
        assert pool.stats().size == 6

        def shrunk() -> bool:
            backend_of(pool)
            return pool.stats().size == 2

        eventually(shrunk)
        # All six connections are available again.
        with ExitStack() as connections:
            for _ in range(6):
                connections.enter_context(pool.engine.connect())
            assert pool.stats().active == 6


def test_connection_that_the_server_closed_is_replaced_at_checkout(
    database_url: str, application: sa.Engine
) -> None:
    with pool_on(database_url, min_connections=1) as pool:
        first = backend_of(pool)
        # A transaction would see pg_stat_activity as it was at the first look.
        with application.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            other.exec_driver_sql(f"SELECT pg_terminate_backend({first})")

            def ended() -> bool:
                query = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {first}"
                return other.exec_driver_sql(query).scalar() == 0

            eventually(ended)
        assert backend_of(pool) != first


def test_long_idle_connection_is_checked_at_checkout(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("observatory_storage.bounded_pool._TRUSTED_SECONDS", -1.0)
    with pool_on(database_url, min_connections=1) as pool:
        first = backend_of(pool)
        assert backend_of(pool) == first
        monkeypatch.setattr(pool.engine.dialect, "do_ping", lambda _: False)
        assert backend_of(pool) != first


# What connections are set to


def test_statement_timeout_is_applied(database_url: str) -> None:
    postgres = PostgresConfig.from_url(database_url, statement_timeout_ms=300)
    with StoragePool(StorageConfig(postgres=postgres)) as pool:
        with pytest.raises(Timeout), pool.unit_of_work() as uow:
            uow.session.execute(sa.text("SELECT pg_sleep(30)"))
        with pool.unit_of_work() as uow:
            assert uow.session.scalar(sa.text("SHOW statement_timeout")) == "300ms"


def test_connections_fit_transaction_mode_of_pgbouncer(database_url: str) -> None:
    with pool_on(database_url) as pool, pool.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        assert raw.prepare_threshold is None
        assert "options" not in raw.info.get_parameters()
        assert connection.get_isolation_level() == "READ COMMITTED"
        name = connection.exec_driver_sql("SHOW application_name").scalar()
        assert name == "observatory_storage"
