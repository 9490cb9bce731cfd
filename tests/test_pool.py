"""The pool: how it connects, what bounds it, what it replaces, and what survives a fork."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from observatory_storage.config import (
    PoolConfig,
    PostgresConfig,
    RedisConfig,
    RetryConfig,
    StorageConfig,
)
from observatory_storage.embedded import EmbeddedPostgres
from observatory_storage.errors import (
    ConfigError,
    ConnectionLost,
    PoolError,
    StorageError,
    Timeout,
    translated,
)
from observatory_storage.models import Trace
from observatory_storage.pool import StoragePool

MULTITHREADED = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
PATIENT = RetryConfig(max_attempts=20, initial_delay_ms=1, max_delay_ms=50)
MOMENT = datetime(2024, 5, 17, 1, 2, 3, 456789, tzinfo=UTC)


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
    """An engine as an application may have it."""
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


def test_it_can_wait_for_its_first_use(database_url: str) -> None:
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
    """Start the stopped server when so many attempts to connect have been logged as failed."""
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


def test_it_tries_again_until_the_server_is_there(embedded_server: EmbeddedPostgres) -> None:
    embedded_server.stop()
    config = config_for(embedded_server.url, retry=PATIENT)
    with started_after(embedded_server, 2) as failed, StoragePool(config) as pool:
        assert backend_of(pool) > 0
    assert len(failed) >= 2
    assert "PostgreSQL cannot be reached, attempt 1 of 20, next in 0.00 s" in failed[0]


def test_the_first_use_tries_again_too(embedded_server: EmbeddedPostgres) -> None:
    embedded_server.stop()
    with StoragePool(config_for(embedded_server.url, retry=PATIENT), connect=False) as pool:
        with started_after(embedded_server, 2) as failed, pool.unit_of_work() as uow:
            assert uow.session.scalar(sa.text("SELECT 1")) == 1
        assert len(failed) >= 2


def test_it_recovers_from_a_restart_of_the_server(embedded_server: EmbeddedPostgres) -> None:
    with StoragePool(config_for(embedded_server.url, retry=PATIENT)) as pool:
        before = backend_of(pool)
        embedded_server.kill()
        embedded_server.start()
        assert backend_of(pool) != before


def test_it_gives_up_after_the_attempts_that_were_set(caplog: pytest.LogCaptureFixture) -> None:
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
        redis=RedisConfig(url="redis://:redis2secret@127.0.0.1:1/0"),
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


def test_who_waits_gets_the_connection_that_comes_back(database_url: str) -> None:
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


def test_an_idle_connection_is_replaced_when_it_is_taken(database_url: str) -> None:
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
        # All six can be had again.
        with ExitStack() as connections:
            for _ in range(6):
                connections.enter_context(pool.engine.connect())
            assert pool.stats().active == 6


def test_a_connection_that_the_server_ended_is_not_given_out(
    database_url: str, application: sa.Engine
) -> None:
    with pool_on(database_url, min_connections=1) as pool:
        first = backend_of(pool)
        with application.begin() as other:
            other.exec_driver_sql(f"SELECT pg_terminate_backend({first})")

            def ended() -> bool:
                query = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {first}"
                return other.exec_driver_sql(query).scalar() == 0

            eventually(ended)
        assert backend_of(pool) != first


def test_a_silent_connection_is_asked_before_it_is_given_out(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("observatory_storage.bounded_pool._TRUSTED_SECONDS", -1.0)
    with pool_on(database_url, min_connections=1) as pool:
        first = backend_of(pool)
        assert backend_of(pool) == first
        monkeypatch.setattr(pool.engine.dialect, "do_ping", lambda _: False)
        assert backend_of(pool) != first


# What connections are set to


def test_statements_can_be_limited(database_url: str) -> None:
    postgres = PostgresConfig.from_url(database_url, statement_timeout_ms=30)
    with StoragePool(StorageConfig(postgres=postgres)) as pool:
        with pytest.raises(Timeout), pool.unit_of_work() as uow:
            uow.session.execute(sa.text("SELECT pg_sleep(30)"))
        with pool.unit_of_work() as uow:
            assert uow.session.scalar(sa.text("SHOW statement_timeout")) == "30ms"


def test_connections_are_ready_for_pgbouncer(database_url: str) -> None:
    with pool_on(database_url) as pool, pool.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        assert raw.prepare_threshold is None
        assert "options" not in raw.info.get_parameters()
        assert connection.get_isolation_level() == "READ COMMITTED"
        name = connection.exec_driver_sql("SHOW application_name").scalar()
        assert name == "observatory_storage"


def set_database_to(engine: sa.Engine, **settings: str) -> None:
    with engine.begin() as connection:
        name = connection.exec_driver_sql("SELECT quote_ident(current_database())").scalar()
        for setting, value in settings.items():
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET {setting} TO '{value}'")
    engine.dispose()


def times_read_by(pool: StoragePool) -> Iterator[datetime]:
    """A time as it comes by way of the ORM, of SQL, of an array and of a server-side cursor."""
    key = UUID(int=1)
    with pool.unit_of_work() as uow:
        uow.session.add(Trace(id=key, trace_id=key.hex, service_name="service", start_time=MOMENT))
        uow.session.flush()
        uow.session.expunge_all()
        trace = uow.session.get_one(Trace, key)
        yield trace.start_time
        query = sa.text("SELECT start_time, ARRAY[start_time] FROM traces")
        query = sa.select(sa.column("start_time"), sa.text("ARRAY[start_time]")).select_from(Trace)
        for options in ({}, {"stream_results": True, "yield_per": 10}):
            for moment, moments in uow.session.execute(query, execution_options=options):
                yield moment
                yield moments[0]


def test_times_are_utc_whatever_the_server_says(database_url: str, application: sa.Engine) -> None:
    set_database_to(application, timezone="Asia/Kolkata", datestyle="SQL, DMY")
    with pool_on(database_url) as pool:
        for moment in times_read_by(pool):
            assert (moment, moment.tzinfo) == (MOMENT, UTC)
        with pool.engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            for binary in (False, True):
                cursor = raw.cursor(binary=binary)
                [moment] = cursor.execute("SELECT %s::timestamptz", [MOMENT]).fetchone()
                assert (moment, moment.tzinfo) == (MOMENT, UTC)


# The application's engine


def test_an_application_s_engine_gives_utc_here_and_stays_as_it_was(
    application: sa.Engine,
) -> None:
    set_database_to(application, timezone="Asia/Kolkata")
    with StoragePool.from_engine(application) as pool:
        for moment in times_read_by(pool):
            assert (moment, moment.tzinfo) == (MOMENT, UTC)
    with application.connect() as connection:
        own = connection.execute(sa.select(sa.literal(MOMENT, sa.DateTime(timezone=True))))
        assert str(own.scalar_one().tzinfo) == "Asia/Kolkata"


def test_an_application_s_engine_is_shared_not_owned(application: sa.Engine) -> None:
    config = StorageConfig(postgres=PostgresConfig(statement_timeout_ms=1234, schema="obs"))
    with StoragePool.from_engine(application, config) as pool:
        assert pool.config is config
        pool.run_migrations()
        with pool.unit_of_work() as uow:
            assert uow.session.scalar(sa.text("SHOW statement_timeout")) == "1234ms"
            assert uow.session.scalars(sa.select(Trace)).all() == []
            assert pool.stats().active == 1
        assert pool.engine.pool is application.pool
        assert "obs" in sa.inspect(application).get_schema_names()
    with pytest.raises(PoolError, match="closed"):
        pool.unit_of_work()
    with application.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
        assert "schema_translate_map" not in connection.get_execution_options()
        with pytest.raises(sa.exc.ProgrammingError):
            connection.exec_driver_sql("SELECT * FROM obs.nothing")


def test_json_is_repaired_on_an_application_s_engine_only(application: sa.Engine) -> None:
    attributes = {"nul": "a\0b", "nan": float("nan"), "big": 2**70}
    repaired = {"nul": "a\N{REPLACEMENT CHARACTER}b", "nan": "NaN", "big": 2**70}
    row = {"trace_id": "t", "service_name": "s", "start_time": MOMENT, "attributes": attributes}
    with StoragePool.from_engine(application, schema="public") as pool:
        with pool.unit_of_work() as uow:
            uow.session.add(Trace(id=UUID(int=2), **row))
            uow.commit()
        with pool.unit_of_work() as uow:
            assert uow.session.get_one(Trace, UUID(int=2)).attributes == repaired
    with Session(application) as session, pytest.raises(sa.exc.DataError):
        session.add(Trace(id=UUID(int=3), **row))
        session.commit()


def test_a_pool_on_another_pool_s_engine_leaves_it_open(database_url: str) -> None:
    with pool_on(database_url) as pool:
        StoragePool.from_engine(pool.engine).close()
        assert backend_of(pool) > 0


def test_the_schema_is_given_once(application: sa.Engine) -> None:
    assert StoragePool.from_engine(application, schema="obs").schema == "obs"
    with pytest.raises(ConfigError, match="not both"):
        StoragePool.from_engine(application, StorageConfig(), schema="obs")


def test_other_engines_are_refused() -> None:
    others: list[Any] = [
        sa.create_engine("sqlite://"),
        sa.create_engine("postgresql+psycopg_async://u@localhost/d"),
        "postgresql+psycopg://u@localhost/d",
    ]
    for other in others:
        with pytest.raises(ConfigError, match=r"must be an engine of sqlalchemy.create_engine"):
            StoragePool.from_engine(other)


def test_a_pool_without_a_bound_has_none_in_its_stats(database_url: str) -> None:
    url = "postgresql+psycopg://" + database_url.partition("://")[2]
    unbounded = sa.create_engine(url, poolclass=NullPool)
    stats = StoragePool.from_engine(unbounded).stats()
    assert (stats.size, stats.max, stats.utilization, stats.near_capacity) == (0, None, 0.0, False)
    bounded = sa.create_engine(url, pool_size=2, max_overflow=3)
    assert StoragePool.from_engine(bounded).stats().max == 5


# Forks


def in_child(work: Callable[[], object]) -> None:
    """Run it in a forked process, which must end well."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


@MULTITHREADED
@pytest.mark.parametrize("owned", [True, False])
def test_a_child_gets_connections_of_its_own(
    database_url: str, application: sa.Engine, owned: bool
) -> None:
    with ExitStack() as pools:
        if owned:
            pool = pools.enter_context(pool_on(database_url, min_connections=2))
        else:
            pool = pools.enter_context(StoragePool.from_engine(application))
        with pool.unit_of_work() as uow:
            held = uow.session.scalar(sa.text("SELECT pg_backend_pid()"))
            idle = backend_of(pool)

            def work() -> None:
                assert backend_of(pool) not in (held, idle)
                with pool.unit_of_work() as own:
                    other = own.session.scalar(sa.text("SELECT pg_backend_pid()"))
                    assert other not in (held, idle)
                pool.close()

            in_child(work)
            # The parent's transaction and its idle connection are as they were.
            assert uow.session.scalar(sa.text("SELECT pg_backend_pid()")) == held
            assert backend_of(pool) == idle


@MULTITHREADED
def test_a_child_of_multiprocessing_can_use_the_pool(database_url: str) -> None:
    with pool_on(database_url, min_connections=1) as pool:
        own = backend_of(pool)
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        children = [context.Process(target=lambda: answers.put(backend_of(pool))) for _ in range(2)]
        for child in children:
            child.start()
        found = {answers.get(timeout=30) for _ in children}
        for child in children:
            child.join(timeout=30)
        assert len(found | {own}) == 3
        assert backend_of(pool) == own


@MULTITHREADED
def test_a_child_gets_connections_to_redis_of_its_own(database_url: str, redis_url: str) -> None:
    config = config_for(database_url, redis=RedisConfig(url=redis_url))
    with StoragePool(config) as pool:
        assert pool.redis is not None
        client = pool.redis
        own = client.client_id()

        def work() -> None:
            assert client.client_id() != own

        in_child(work)
        assert client.client_id() == own


def test_errors_of_the_pool_leave_as_they_are() -> None:
    with pytest.raises(StorageError), translated():
        raise PoolError
