"""What the tests of writers with a spool do and look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from observatory_embedded import EmbeddedPostgres
from observatory_storage.models import LogRecord
from observatory_storage.pool import StoragePool
from observatory_storage.writers import (
    LogWriter,
    MetricWriter,
    TraceWriter,
    WriterConfig,
)
from tests.writers.helpers import (
    empty,
    fetch,
)


@contextmanager
def away(server: EmbeddedPostgres) -> Iterator[None]:
    """The server is stopped meanwhile."""
    server.stop()
    try:
        yield
    finally:
        server.start()


def files(config: WriterConfig) -> list[Path]:
    assert config.spool_dir is not None
    return sorted(p for p in Path(config.spool_dir).iterdir() if p.name != ".lock")


def bodies(pool: StoragePool) -> list[Any]:
    return sorted(row["body"] for row in fetch(pool, LogRecord))


def replayed(writer: LogWriter | MetricWriter | TraceWriter, rows: int) -> Callable[[], bool]:
    return lambda: writer.write_stats().replayed == rows


@contextmanager
def refusing(pool: StoragePool) -> Iterator[None]:
    """The database refuses some logs for their data."""
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(
            "ALTER TABLE logs ADD CONSTRAINT refused CHECK (body NOT LIKE 'bad%%')"
        )
    yield
    empty(pool)
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE logs DROP CONSTRAINT refused")
