"""On a hot standby reading works, and what would be wrong there is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import CopyWriter, PostgresConfig, RetryConfig, StorageConfig, StoragePool
from observatory_storage.errors import StorageError

LOG = {"timestamp": datetime(2026, 3, 4, 12, tzinfo=UTC), "service_name": "s", "body": "before"}


def config_for(url: str) -> StorageConfig:
    return StorageConfig(
        postgres=PostgresConfig.from_url(url), retry=RetryConfig(max_attempts=2, initial_delay_ms=1)
    )


@pytest.fixture
def standby(embedded_server: EmbeddedPostgres) -> Iterator[StoragePool]:
    """A pool on a server in recovery, which holds one log record."""
    with StoragePool(config_for(embedded_server.url)) as pool:
        pool.run_migrations()
        CopyWriter(pool).write_logs([LOG])
    embedded_server.stop()
    signal = embedded_server.data_folder / "standby.signal"
    signal.touch()
    owner = embedded_server.data_folder.stat()
    os.chown(signal, owner.st_uid, owner.st_gid)
    embedded_server.start()
    with StoragePool(config_for(embedded_server.url)) as pool:
        yield pool


def test_reading_works(standby: StoragePool) -> None:
    with standby.unit_of_work() as uow:
        assert [one.body for one in uow.logs.list()] == ["before"]


def test_tail_is_refused(standby: StoragePool) -> None:
    with (
        standby.unit_of_work() as uow,
        pytest.raises(StorageError, match="cannot follow rows on a standby"),
    ):
        uow.logs.tail()


def test_error_of_a_write_names_the_primary(standby: StoragePool) -> None:
    with pytest.raises(StorageError, match="takes no writes: connect to the primary"):
        CopyWriter(standby).write_logs([{**LOG, "body": "after"}])
