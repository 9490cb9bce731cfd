"""What tests of streams share: configurations, rows, and what a stream has."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import SecretStr
from redis import Redis

from observatory_storage import (
    CopyWriter,
    PostgresConfig,
    RedisConfig,
    StorageConfig,
    StoragePool,
    StreamsConfig,
)
from observatory_storage.config import STREAM_SIGNALS
from tests.repositories.samples import a_log

__all__ = ["all_of", "flushed", "live_config", "numbers_of", "stopped", "write_logs"]


def live_config(database_url: str, redis_url: str | None, **streams: Any) -> StorageConfig:
    """A configuration that publishes all signals, unless told otherwise."""
    return StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        redis=RedisConfig(url=SecretStr(redis_url) if redis_url else None, timeout_secs=1),
        streams=StreamsConfig(**{"signals": STREAM_SIGNALS, **streams}),
    )


def write_logs(pool: StoragePool, numbers: Sequence[int], **columns: Any) -> None:
    """Commit log records, whose span ids are the numbers, and wait until they are published."""
    CopyWriter(pool).write_logs(
        [a_log(n, **{"span_id": f"{n:016x}", "body": f"{n}.", **columns}) for n in numbers]
    )
    flushed(pool)


def flushed(pool: StoragePool) -> None:
    """Wait until everything is published."""
    publisher = pool._publisher
    assert publisher is not None
    assert publisher.flush(30)


def numbers_of(entries: Any) -> list[int]:
    """The numbers of log records."""
    return [int(entry.row.span_id, 16) for entry in entries]


def all_of(pool: StoragePool, signal_name: Any, **arguments: Any) -> list[Any]:
    """The rows that a stream has now."""
    with pool.stream(signal_name, after="0", timeout=0.2, **arguments) as stream:
        return [entry.row for entry in stream]


@contextmanager
def stopped(url: str) -> Iterator[Callable[[], None]]:
    """A server that does not answer, until the yielded function is called."""
    with Redis.from_url(url) as client:
        process = int(client.info("server")["process_id"])
    os.kill(process, signal.SIGSTOP)
    try:
        yield lambda: os.kill(process, signal.SIGCONT)
    finally:
        os.kill(process, signal.SIGCONT)
