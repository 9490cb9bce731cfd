"""The health report covers PostgreSQL and Redis, and never raises."""

from __future__ import annotations

import logging
import os
import signal
import socket

import pytest
from pydantic import SecretStr

from observatory_embedded import EmbeddedPostgres, EmbeddedValkey
from observatory_storage.config import (
    PoolConfig,
    PostgresConfig,
    RedisConfig,
    RetryConfig,
    StorageConfig,
)
from observatory_storage.health import create_app
from observatory_storage.pool import StoragePool

QUICK = RetryConfig(max_attempts=2, initial_delay_ms=1, max_delay_ms=1)


def test_both_servers_are_reported(database_url: str, redis_url: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url), redis=RedisConfig(url=SecretStr(redis_url))
    )
    with StoragePool(config) as pool:
        report = pool.health_check()
    assert report.status == "healthy"
    assert report.postgres.ok
    assert report.postgres.error is None
    assert report.postgres.version is not None
    assert int(report.postgres.version.partition(".")[0]) >= 15
    assert report.postgres.latency_ms > 0
    assert report.redis is not None
    assert report.redis.ok
    assert report.redis.version is not None
    assert report.redis.latency_ms > 0


def test_without_redis_only_postgresql_is_reported(database_url: str) -> None:
    config = StorageConfig(postgres=PostgresConfig.from_url(database_url))
    with StoragePool(config) as pool:
        assert pool.redis is None
        report = pool.health_check()
    assert (report.status, report.redis) == ("healthy", None)


def test_status_is_degraded_without_an_answer_of_redis(
    database_url: str, embedded_redis: EmbeddedValkey
) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        redis=RedisConfig(url=SecretStr(embedded_redis.url)),
        retry=QUICK,
    )
    with StoragePool(config) as pool:
        assert pool.health_check().status == "healthy"
        embedded_redis.kill()
        report = pool.health_check()
        assert report.status == "degraded"
        assert report.postgres.ok
        assert report.redis is not None
        assert not report.redis.ok
        assert report.redis.version is None
        assert report.redis.error
        embedded_redis.start()
        assert pool.health_check().status == "healthy"


def test_a_pool_starts_without_its_redis(database_url: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        redis=RedisConfig(url=SecretStr("redis://:secret@127.0.0.1:1/0")),
        retry=QUICK,
    )
    with StoragePool(config) as pool:
        report = pool.health_check()
    assert report.status == "degraded"
    assert "secret" not in repr(report)


def test_status_is_unhealthy_after_one_attempt_to_reach_postgresql(
    embedded_server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(embedded_server.url),
        # Retries would take a minute.
        retry=RetryConfig(max_attempts=100, initial_delay_ms=1000),
    )
    with StoragePool(config) as pool:
        embedded_server.kill()
        caplog.set_level(logging.WARNING)
        report = pool.health_check()
        assert report.status == "unhealthy"
        assert not report.postgres.ok
        assert report.postgres.version is None
        assert report.postgres.error
        assert caplog.records == []
        embedded_server.start()
        assert pool.health_check().status == "healthy"


def test_status_is_unhealthy_when_the_pool_is_exhausted(database_url: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(max_connections=1, acquire_timeout_secs=0.01),
    )
    pool = StoragePool(config)
    with pool.engine.connect():
        report = pool.health_check()
        assert report.status == "unhealthy"
        assert "all 1 (max_connections) are in use" in str(report.postgres.error)
    assert pool.health_check().status == "healthy"
    pool.close()
    assert pool.health_check().postgres.error == "the pool is closed"


def test_silent_redis_is_awaited_once(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = StorageConfig(
            postgres=PostgresConfig.from_url(database_url),
            redis=RedisConfig(
                url=SecretStr(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"), timeout_secs=0.05
            ),
            # Retries would take a minute.
            retry=RetryConfig(max_attempts=100, initial_delay_ms=1000),
        )
        with StoragePool(config) as pool:
            assert pool.health_check().status == "degraded"
        silent.settimeout(5)
        silent.accept()[0].close()
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_check_with_a_timeout_answers_while_all_connections_are_in_use(
    database_url: str,
) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(max_connections=1, acquire_timeout_secs=60),
    )
    with StoragePool(config) as pool, pool.engine.connect():
        report = pool.health_check(timeout=0.2)
        assert report.status == "unhealthy"
        assert report.postgres.error is not None
        assert "all 1 (max_connections) are in use" in report.postgres.error


def test_a_check_with_a_timeout_answers_while_the_server_is_silent(
    embedded_server: EmbeddedPostgres,
) -> None:
    with StoragePool(StorageConfig(postgres=PostgresConfig.from_url(embedded_server.url))) as pool:
        with pool.engine.connect() as connection:
            backend = int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        os.kill(backend, signal.SIGSTOP)
        try:
            report = pool.health_check(timeout=0.2)
        finally:
            os.kill(backend, signal.SIGCONT)
        assert report.status == "unhealthy"
        assert report.postgres.error == "no answer within 0.2 s"
        assert pool.health_check(timeout=30).status == "healthy"


def test_the_log_tells_of_the_first_failed_probe_and_of_the_recovery(
    embedded_server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "observatory_storage.health")
    config = StorageConfig(postgres=PostgresConfig.from_url(embedded_server.url))
    with StoragePool(config) as pool:
        for step in (embedded_server.stop, embedded_server.start, embedded_server.stop):
            step()
            for _ in range(3):  # as each request of Django's and Flask's views
                app = create_app(pool)
                b"".join(app({"PATH_INFO": "/health", "REQUEST_METHOD": "GET"}, lambda *_: print))
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    failed = "PostgreSQL failed its health check"
    assert said == [failed, "PostgreSQL passes its health check again", failed]
