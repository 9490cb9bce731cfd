"""Redis fails in every way: reads are answered from PostgreSQL, and nothing stays out of date."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from observatory_embedded import EmbeddedValkey
from observatory_storage import (
    CacheConfig,
    CacheError,
    CopyWriter,
    PostgresConfig,
    RedisConfig,
    StorageConfig,
    StoragePool,
)
from tests.cache.conftest import config_with
from tests.cache.reading import (
    KEY,
    content_of,
    counting,
    key_of_trace,
    names,
    some_spans,
    span_count,
)
from tests.repositories.samples import START, a_span
from tests.test_fork import in_child

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


@contextmanager
def paused(url: str) -> Iterator[None]:
    """Stop the server's process, so that it accepts connections and never answers."""
    with redis.Redis.from_url(url) as client:
        process = int(client.info("server")["process_id"])
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def hasty(database_url: str, embedded_redis: EmbeddedValkey) -> Iterator[StoragePool]:
    """A pool that waits for the cache as long as the default says, on a server to stop."""
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        redis=RedisConfig(url=SecretStr(embedded_redis.url)),
        cache=CacheConfig(commit_timeout_ms=100),
    )
    with StoragePool(config) as pool:
        yield pool


def is_closed(pool: StoragePool) -> bool:
    """Whether Redis is asked, after a read that may have asked it."""
    names(pool)
    return not pool.cache.stats().is_open


def test_reads_are_answered_without_a_server(
    hasty: StoragePool, embedded_redis: EmbeddedValkey
) -> None:
    CopyWriter(hasty).write_spans(some_spans())
    until(lambda: is_closed(hasty))
    embedded_redis.stop()
    with counting(hasty, "traces") as counted:
        for _ in range(10):
            assert len(names(hasty)) == 3
    assert counted == {"errors": 10}
    stats = hasty.cache.stats()
    assert (stats.is_open, stats.openings >= 1) == (True, True)
    assert span_count(hasty) == 3
    with pytest.raises(CacheError, match="Redis could not be used"):
        hasty.cache.clear()
    embedded_redis.start()
    until(lambda: is_closed(hasty))
    with counting(hasty, "traces") as counted:
        assert len(names(hasty)) == 3
    assert "errors" not in counted


def test_reads_are_answered_while_the_server_stands_still(
    hasty: StoragePool, embedded_redis: EmbeddedValkey
) -> None:
    CopyWriter(hasty).write_spans(some_spans())
    until(lambda: is_closed(hasty))
    with paused(embedded_redis.url):
        for _ in range(10):
            assert len(names(hasty)) == 3
        assert span_count(hasty) == 3
        assert hasty.cache.stats().is_open
    until(lambda: is_closed(hasty))


def test_a_commit_that_redis_does_not_hear_of_is_made_up_for(
    database_url: str, hasty: StoragePool, embedded_redis: EmbeddedValkey
) -> None:
    config = config_with(database_url, embedded_redis.url, statistics_ttl="1h", traces_recheck="1h")
    with StoragePool(config) as reader:
        CopyWriter(hasty).write_spans(some_spans())
        until(lambda: not hasty.cache.stats().is_behind)
        assert [span_count(reader) for _ in range(2)] == [3, 3]
        assert [len(names(reader)) for _ in range(2)] == [3, 3]
        with paused(embedded_redis.url):
            CopyWriter(hasty).write_spans([a_span(1, 9, START)])
            assert hasty.cache.stats().failed_invalidations >= 1
            assert hasty.cache.stats().is_behind
            # The process that could not tell of its rows does not use what may be out of date.
            assert span_count(hasty) == 4
        until(lambda: not hasty.cache.stats().is_behind)
        assert span_count(reader) == 4
        assert len(names(reader)) == 4


def test_a_server_without_memory_keeps_answering(
    database_url: str, embedded_redis: EmbeddedValkey
) -> None:
    with (
        redis.Redis.from_url(embedded_redis.url) as client,
        StoragePool(config_with(database_url, embedded_redis.url, traces_recheck="0s")) as pool,
    ):
        CopyWriter(pool).write_spans([*some_spans(), *some_spans(2)])
        assert [len(names(pool)) for _ in range(2)] == [3, 3]
        assert [span_count(pool) for _ in range(2)] == [6, 6]
        client.config_set("maxmemory", 1)
        with counting(pool, "traces") as counted:
            assert len(names(pool)) == 3
            assert len(names(pool, f"{2:032x}")) == 3
        assert counted == {"hits": 1, "misses": 1, "refused": 1}
        # Values are taken back all the same.
        CopyWriter(pool).write_spans([a_span(1, 9, START)])
        assert len(names(pool)) == 4
        assert [span_count(pool) for _ in range(2)] == [7, 7]
        stats = pool.cache.stats()
        assert (stats.is_open, stats.openings, stats.failed_invalidations) == (False, 0, 0)
        client.config_set("maxmemory", 0)
        with counting(pool, "statistics") as counted:
            assert [span_count(pool) for _ in range(2)] == [7, 7]
        assert counted == {"misses": 1, "stored": 1, "hits": 1}


def test_values_that_a_server_has_saved_before_are_not_used(
    database_url: str, tmp_path: Path
) -> None:
    with EmbeddedValkey(tmp_path / "data") as server:
        with StoragePool(config_with(database_url, server.url, traces_recheck="1h")) as pool:
            CopyWriter(pool).write_spans(some_spans())
            assert [span_count(pool) for _ in range(2)] == [3, 3]
            assert [len(names(pool)) for _ in range(2)] == [3, 3]
        server.stop()
        plain = StorageConfig(postgres=PostgresConfig.from_url(database_url))
        with StoragePool(plain) as pool:
            CopyWriter(pool).write_spans([a_span(1, 9, START)])
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert key_of_trace(client)
        with StoragePool(config_with(database_url, server.url, traces_recheck="1h")) as pool:
            assert span_count(pool) == 4
            assert len(names(pool)) == 4


def test_a_pool_does_not_use_saved_values_of_a_server_that_restarts_under_it(
    database_url: str, tmp_path: Path
) -> None:
    plain = StorageConfig(postgres=PostgresConfig.from_url(database_url))
    with (
        EmbeddedValkey(tmp_path / "data") as server,
        StoragePool(config_with(database_url, server.url)) as pool,
        StoragePool(plain) as other,
    ):
        CopyWriter(pool).write_spans(some_spans())
        assert [span_count(pool) for _ in range(2)] == [3, 3]
        server.stop()
        CopyWriter(other).write_spans([a_span(1, 9, START)])
        server.start()
        assert [span_count(pool) for _ in range(3)] == [4, 4, 4]


@pytest.mark.parametrize("damage", ["garbage", "cut", "flipped", "another version", "type"])
def test_damaged_values_are_misses(cached: StoragePool, client: redis.Redis, damage: str) -> None:
    CopyWriter(cached).write_spans(some_spans(attributes={"text": "word " * 1_000}))
    assert len(names(cached)) == 3
    key = key_of_trace(client)
    content = content_of(client, key)
    if damage == "type":
        client.delete(key)
        client.lpush(key, "x")
    else:
        middle = len(content) // 2
        damaged = {
            "garbage": os.urandom(500),
            "cut": content[:-5],
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "another version": content[:5] + os.urandom(8) + content[13:],
        }
        client.set(key, damaged[damage])
    with counting(cached, "traces") as counted:
        assert len(names(cached)) == 3
    if damage == "type":
        assert counted == {"misses": 1, "refused": 1}
    else:
        assert counted == {"misses": 1, "damaged": 1, "stored": 1}
        with counting(cached, "traces") as counted:
            assert len(names(cached)) == 3
        assert counted == {"hits": 1}


def test_a_child_opens_connections_of_its_own(cached: StoragePool, client: redis.Redis) -> None:
    CopyWriter(cached).write_spans(some_spans())
    assert [len(names(cached)) for _ in range(2)] == [3, 3]
    before = len(client.client_list())

    def work() -> None:
        assert len(names(cached)) == 3
        assert len(client.client_list()) > before
        CopyWriter(cached).write_spans([a_span(1, 9, START)])
        assert len(names(cached)) == 4

    in_child(work)
    assert len(names(cached)) == 4
    assert span_count(cached) == 4


def test_a_child_reads_though_a_thread_was_counting_at_the_fork(cached: StoragePool) -> None:
    CopyWriter(cached).write_spans(some_spans())
    assert len(names(cached)) == 3
    counts = cached.cache._counters._process.get()

    def work() -> None:
        signal.alarm(20)  # ends a child that waits for the lock
        with counting(cached, "traces") as counted:
            assert len(names(cached)) == 3
        assert counted == {"hits": 1}
        assert cached.cache.stats().kinds["traces"].misses == 0

    with counts.lock:
        in_child(work)


def test_options_of_the_url_do_not_change_how_values_are_read(
    database_url: str, redis_url: str
) -> None:
    url = f"{redis_url}{'&' if '?' in redis_url else '?'}decode_responses=true&socket_timeout=99"
    with StoragePool(config_with(database_url, url)) as pool:
        CopyWriter(pool).write_spans(some_spans())
        assert [len(names(pool)) for _ in range(2)] == [3, 3]
        assert pool.cache.stats().kinds["traces"].hits == 1


def test_databases_and_schemas_do_not_meet(
    database_url: str, empty_database_url: str, redis_url: str
) -> None:
    elsewhere = config_with(empty_database_url, redis_url)
    telemetry = PostgresConfig.from_url(empty_database_url).model_copy(
        update={"schema_name": "telemetry"}
    )
    in_schema = config_with(empty_database_url, redis_url).model_copy(
        update={"postgres": telemetry}
    )
    with (
        StoragePool(config_with(database_url, redis_url)) as first,
        StoragePool(elsewhere) as second,
        StoragePool(in_schema) as third,
    ):
        for count, pool in enumerate((first, second, third), start=1):
            pool.run_migrations()
            CopyWriter(pool).write_spans(some_spans(count=count))
        for _ in range(2):
            for count, pool in enumerate((first, second, third), start=1):
                assert len(names(pool, KEY)) == count
                assert span_count(pool) == count
        for pool in (first, second, third):
            assert pool.cache.stats().kinds["traces"].hits == 1
