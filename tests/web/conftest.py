"""A pool that must not be used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from observatory_storage import (
    PostgresConfig,
    StorageConfig,
    StoragePool,
)
from tests.commands import logs_request, metrics_request, traces_request

REQUESTS = {"traces": traces_request(), "metrics": metrics_request(), "logs": logs_request()}


@pytest.fixture
def nowhere() -> Iterator[StoragePool]:
    """A pool that can do nothing: what is refused must not get as far as the database."""
    config = StorageConfig(postgres=PostgresConfig(host="127.0.0.1", port=1))
    with StoragePool(config, connect=False) as pool:
        yield pool
