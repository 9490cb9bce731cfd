"""On a hot standby reading works, and what would be wrong there is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from observatory_embedded import EmbeddedPostgres
from observatory_storage import (
    CopyWriter,
    PostgresConfig,
    RedisConfig,
    RetryConfig,
    StorageConfig,
    StoragePool,
)
from observatory_storage.errors import StorageError

LOG = {"timestamp": datetime(2026, 3, 4, 12, tzinfo=UTC), "service_name": "s", "body": "before"}


SPAN: dict[str, Any] = {
    "trace_id": f"{1:032x}",
    "span_id": f"{1:016x}",
    "name": "chat",
    "service_name": "s",
    "start_time": datetime(2026, 3, 4, 12, tzinfo=UTC),
}


def config_for(url: str, redis_url: str | None = None) -> StorageConfig:
    return StorageConfig(
        postgres=PostgresConfig.from_url(url),
        retry=RetryConfig(max_attempts=2, initial_delay_ms=1),
        redis=RedisConfig(url=SecretStr(redis_url) if redis_url else None),
    )


@pytest.fixture
def standby(embedded_server: EmbeddedPostgres) -> Iterator[StoragePool]:
    """A pool on a server in recovery, which holds one log record and one span."""
    with StoragePool(config_for(embedded_server.url)) as pool:
        pool.run_migrations()
        CopyWriter(pool).write_logs([LOG])
        CopyWriter(pool).write_spans([SPAN])
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


def test_nothing_that_is_read_there_is_cached(
    standby: StoragePool, embedded_server: EmbeddedPostgres, redis_url: str
) -> None:
    # A standby may be behind its primary, which uses the same values.
    with StoragePool(config_for(embedded_server.url, redis_url)) as pool:
        for _ in range(2):
            with pool.unit_of_work() as uow:
                assert len(uow.traces.get_spans(SPAN["trace_id"])) == 1
                assert uow.traces.get_stats().span_count == 1
                assert uow.traces.services() == ["s"]
        for kind in pool.cache.stats().kinds.values():
            assert (kind.stored, kind.hits) == (0, 0)


def test_tail_is_refused(standby: StoragePool) -> None:
    with (
        standby.unit_of_work() as uow,
        pytest.raises(StorageError, match="cannot follow rows on a standby"),
    ):
        uow.logs.tail()


def test_error_of_a_write_names_the_primary(standby: StoragePool) -> None:
    with pytest.raises(StorageError, match="takes no writes: connect to the primary"):
        CopyWriter(standby).write_logs([{**LOG, "body": "after"}])
