"""A server that tests may stop, and a spool in a directory of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage.pool import StoragePool
from observatory_storage.writers import (
    WriterConfig,
)
from tests import citus
from tests.servers import FAST
from tests.writers.helpers import (
    ONCE,
    empty,
    quick_pool,
)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that these tests may stop, if they start it again."""
    if citus.URL:
        pytest.skip("a server without Citus")
    with EmbeddedPostgres(settings=FAST, in_memory=True) as server:
        with quick_pool(server.url) as pool:
            pool.run_migrations()
        yield server


@pytest.fixture
def pool(server: EmbeddedPostgres) -> Iterator[StoragePool]:
    """A pool on that server, whose tables are empty; it gives up at the first error."""
    with quick_pool(server.url, ONCE) as pool:
        empty(pool)
        yield pool


@pytest.fixture
def config(tmp_path: Path) -> WriterConfig:
    return WriterConfig(flush_interval_secs=None, spool_dir=tmp_path / "spool")
