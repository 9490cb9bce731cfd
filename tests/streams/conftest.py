"""Pools that publish to Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from observatory_storage import StoragePool
from tests.streams.live import live_config

OpenPool = Callable[..., StoragePool]


@pytest.fixture
def open_pool(database_url: str) -> Iterator[Callable[..., StoragePool]]:
    """Opens pools on the test's database, each with a URL of Redis and settings of streams."""
    with ExitStack() as pools:

        def open_(redis_url: str, **streams: Any) -> StoragePool:
            pool = StoragePool(live_config(database_url, redis_url, **streams))
            return pools.enter_context(pool)

        yield open_


@pytest.fixture
def live(open_pool: OpenPool, redis_url: str) -> StoragePool:
    """A pool that publishes the columns of all signals."""
    return open_pool(redis_url)
