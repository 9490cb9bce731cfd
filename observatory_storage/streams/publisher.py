"""Hears of commits, and publishes their rows to Redis Streams."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from observatory_storage.commits import Commit
from observatory_storage.config import StorageConfig, StreamsConfig
from observatory_storage.operations import Hooks
from observatory_storage.processes import PerProcess
from observatory_storage.streams.publish_queue import PublishQueue, StreamStats
from observatory_storage.streams.stream_client import stream_client
from observatory_storage.streams.streamed_signals import STREAMED, key_prefix
from observatory_storage.tables import SPANS

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["Publisher", "publisher_of"]


_log = logging.getLogger(__name__)


def publisher_of(
    config: StorageConfig, engine: Engine, schema: str, hooks: Hooks
) -> Publisher | None:
    """What publishes commits as configured; None if nothing is published."""
    if not config.streams.signals:
        return None
    if config.redis.url is None:
        _log.warning("nothing is published: streams.signals is set, and redis.url is not")
        return None
    prefix = key_prefix(engine, schema)
    return Publisher(config.streams, prefix, lambda: stream_client(config.redis), hooks)


class Publisher:
    """Publishes what is committed: a `commits.CommitListener`.

    Each process has a queue and a thread of its own, so nothing is published twice after a fork.

    Args:
        config: what to publish.
        prefix: what the names of keys begin with.
        connect: makes the client; it is called once in each process.
        hooks: are told what was published, and what was lost.
    """

    def __init__(
        self, config: StreamsConfig, prefix: str, connect: Callable[[], Redis], hooks: Hooks
    ) -> None:
        self._queue = PerProcess(lambda: PublishQueue(config, prefix, connect, hooks))
        self._tables = {STREAMED[signal].table.name for signal in config.signals}
        if "traces" in config.signals:
            self._tables.add(SPANS.name)

    def on_commit(self, commit: Commit) -> None:
        rows = [row for row in commit.rows if row.table in self._tables]
        if rows:
            self._queue.get().add(rows)

    def stats(self) -> StreamStats:
        """Count what this process has published."""
        return self._queue.get().stats()

    def flush(self, timeout_secs: float) -> bool:
        """Wait until everything is published; False if it was not within these seconds."""
        return self._queue.get().flush(timeout_secs)

    def close(self) -> None:
        """Publish what is waiting, if Redis answers, and end the thread of this process."""
        self._queue.get().close()

    def __del__(self) -> None:
        # A pool that was dropped without being closed leaves no thread behind.
        queue: PerProcess[PublishQueue] | None = getattr(self, "_queue", None)
        if queue is not None:
            queue.get().abandon()
