"""Values that could not be taken back are owed, until Redis answers or the pool is closed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis

from observatory_embedded import EmbeddedValkey
from observatory_storage import CopyWriter, StoragePool
from tests.cache.conftest import config_with
from tests.cache.reading import names, some_spans, stored_keys
from tests.cache.test_failures import paused, until
from tests.repositories.samples import START, a_span, trace_key

_LOGGER = "observatory_storage.cache.invalidation"


@pytest.fixture
def pool_of_server(database_url: str, embedded_redis: EmbeddedValkey) -> Iterator[StoragePool]:
    config = config_with(
        database_url, embedded_redis.url, commit_timeout_ms=100, traces_recheck="0s"
    )
    with StoragePool(config) as pool:
        yield pool


def values_of_traces(client: redis.Redis) -> list[bytes]:
    return [key for key in stored_keys(client) if b":t:" in key]


def erase(pool: StoragePool, user: str) -> None:
    with pool.unit_of_work() as uow:
        uow.traces.delete_user(user)
        uow.commit()


def test_closing_warns_of_erased_values_that_stay(
    pool_of_server: StoragePool, embedded_redis: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    pool = pool_of_server
    CopyWriter(pool).write_spans(some_spans(user_id="ada"))
    names(pool)
    with redis.Redis.from_url(embedded_redis.url) as client:
        assert values_of_traces(client)
        with paused(embedded_redis.url):
            erase(pool, "ada")
            with caplog.at_level(logging.WARNING, _LOGGER):
                caplog.clear()
                pool.close()
        assert values_of_traces(client)
    (message,) = [one.getMessage() for one in caplog.records if one.name == _LOGGER]
    assert "of 1 trace(s), erased ones included, may stay in Redis until " in message
    until_when = datetime.fromisoformat(message.partition(" until ")[2].partition(";")[0])
    assert timedelta() < until_when - datetime.now(UTC) <= timedelta(hours=1)


def test_erasing_more_traces_than_are_noted_removes_the_values_of_all(
    pool_of_server: StoragePool, embedded_redis: EmbeddedValkey
) -> None:
    pool = pool_of_server
    erased = [a_span(n, 1, START, user_id="ada") for n in range(1, 2_102)]
    CopyWriter(pool).write_spans([*erased, a_span(5_000, 1, START, user_id="bob")])
    until(lambda: not pool.cache.stats().is_behind)
    for number in (1, 2_101, 5_000):
        names(pool, trace_key(number))
    with redis.Redis.from_url(embedded_redis.url) as client:
        assert len(values_of_traces(client)) >= 3
        with paused(embedded_redis.url):
            erase(pool, "bob")
            erase(pool, "ada")
            assert pool.cache.stats().is_behind
        until(lambda: not pool.cache.stats().is_behind)
        assert not [key for key in values_of_traces(client) if not key.endswith(b":verified")]


def test_being_behind_is_logged_once_and_so_is_its_end(
    pool_of_server: StoragePool, embedded_redis: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    pool = pool_of_server
    CopyWriter(pool).write_spans(some_spans())
    until(lambda: not pool.cache.stats().is_behind)
    caplog.clear()
    with caplog.at_level(logging.INFO, _LOGGER):
        with paused(embedded_redis.url):
            for number in range(5, 9):
                CopyWriter(pool).write_spans([a_span(1, number, START)])
        until(lambda: not pool.cache.stats().is_behind)
    told = [(one.levelname, one.getMessage()) for one in caplog.records if one.name == _LOGGER]
    assert [level for level, _ in told] == ["WARNING", "INFO"]
    assert "trying again" in told[0][1]
    assert "have been taken back" in told[1][1]
