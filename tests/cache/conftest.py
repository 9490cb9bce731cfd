"""Pools with a cache, beside one without on the same database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from observatory_storage import (
    CacheConfig,
    PostgresConfig,
    RedisConfig,
    StorageConfig,
    StoragePool,
)

MakePool = Callable[..., StoragePool]
# On a busy machine, answers may take longer than the default allows.
PATIENT = {"timeout_ms": 5_000, "commit_timeout_ms": 5_000}


def config_with(database_url: str, redis_url: str, **settings: Any) -> StorageConfig:
    return StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        redis=RedisConfig(url=SecretStr(redis_url)),
        cache=CacheConfig(**{**PATIENT, **settings}),
    )


@pytest.fixture
def make_pool(database_url: str, redis_url: str) -> Iterator[MakePool]:
    """Makes pools with a cache on the test's database; arguments are settings of the cache."""
    with ExitStack() as stack:

        def make(**settings: Any) -> StoragePool:
            config = config_with(database_url, redis_url, **settings)
            return stack.enter_context(StoragePool(config))

        yield make


@pytest.fixture
def cached(make_pool: MakePool) -> StoragePool:
    """A pool with a cache, which compares a cached trace with its rows on each read."""
    return make_pool(traces_recheck="0s")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the server that has the cache."""
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        yield client
