"""Redis by the host and port of a URL; the other tests use its Unix socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from redis import Redis

from observatory_embedded import EmbeddedValkey
from observatory_storage import (
    CacheConfig,
    CopyWriter,
    PostgresConfig,
    RedisConfig,
    StorageConfig,
    StoragePool,
    StreamsConfig,
)
from tests.repositories.samples import START, a_log, a_span


@pytest.fixture
def address(embedded_redis: EmbeddedValkey) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Redis.from_url(embedded_redis.url) as client:
        client.config_set("bind", "127.0.0.1")
        client.config_set("port", port)
    return f"127.0.0.1:{port}"


@pytest.fixture(params=["redis://{}", "redis://{}/0?protocol=3", "redis://{}/0?protocol=2"])
def pool(request: pytest.FixtureRequest, address: str, database_url: str) -> Iterator[StoragePool]:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        redis=RedisConfig(url=SecretStr(request.param.format(address))),
        cache=CacheConfig(timeout_ms=5_000, commit_timeout_ms=5_000),
        streams=StreamsConfig(signals=("logs",)),
    )
    with StoragePool(config) as pool:
        yield pool


def test_reads_are_cached(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, START)])
    for _ in range(2):
        with pool.unit_of_work() as uow:
            assert len(uow.traces.services()) == 1
    names = pool.cache.stats().kinds["names"]
    assert (names.hits, names.errors) == (1, 0)


def test_commits_are_streamed(pool: StoragePool) -> None:
    with pool.stream("logs", after="0", timeout=5) as stream:
        CopyWriter(pool).write_logs([a_log(1)])
        assert next(stream).row.id.int == 1


def test_health_is_known(pool: StoragePool) -> None:
    report = pool.health_check()
    assert report.status == "healthy"
    assert report.redis is not None
    assert report.redis.ok
