"""A pool whose retries do not make a test wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from observatory_storage.pool import StoragePool
from tests.writers.helpers import quick_pool


@pytest.fixture
def pool(database_url: str) -> Iterator[StoragePool]:
    with quick_pool(database_url) as pool:
        yield pool
