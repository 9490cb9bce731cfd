"""Rows that many tests only read are written once for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from observatory_storage import CopyWriter, PostgresConfig, StorageConfig, StoragePool
from tests.repositories.samples import Row, many_spans
from tests.servers import Server


@pytest.fixture(scope="module")
def shared_pool(postgres_server: Server, migrated_template: str) -> Iterator[StoragePool]:
    """A pool on a migrated database of this module's own: only to be read by its tests."""
    with postgres_server.database(migrated_template) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as made:
            yield made


@pytest.fixture(scope="module")
def spans(shared_pool: StoragePool) -> list[Row]:
    """Spans that are in `shared_pool`."""
    rows = many_spans()
    CopyWriter(shared_pool).write_spans(rows)
    return rows
