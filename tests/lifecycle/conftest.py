"""A pool whose retries do not make a test wait, and one with a partition that has filled up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests.lifecycle.full_month import logs, make_month
from tests.lifecycle.pools import pool_with
from tests.writers.helpers import quick_pool


@pytest.fixture
def pool(database_url: str) -> Iterator[StoragePool]:
    with quick_pool(database_url) as pool:
        yield pool


@pytest.fixture
def filled(database_url: str) -> Iterator[StoragePool]:
    """A pool with a month of logs that was made long before, and has filled up since."""
    with pool_with(database_url, split_rows=50) as pool:
        make_month(pool, "logs")
        CopyWriter(pool).write_logs(logs(0, 200))
        yield pool
