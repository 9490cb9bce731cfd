"""Where `StorageHandler` and `StructlogProcessor` put log records: a `LogWriter` of their own."""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

from observatory_storage.errors import PoolError, StorageError, ValidationError
from observatory_storage.last_resort import keep_warnings_visible
from observatory_storage.llm import span_validation
from observatory_storage.pool import StoragePool
from observatory_storage.processes import process_lock
from observatory_storage.recording.loss_report import LossReport
from observatory_storage.shared_pool import shared_pool
from observatory_storage.wording import counted
from observatory_storage.writers import LogWriter, WriterConfig

__all__ = ["LogSink", "PoolSource", "is_of_storage"]

PoolSource: TypeAlias = StoragePool | Callable[[], StoragePool] | None

# Threads of this package, whose records would make work for the same threads.
_THREADS: Final = ("observatory-flush", "observatory-replay", "observatory_storage ")
# Reports that records or spans could not be stored cannot be stored either.
_LOGGERS: Final = ("observatory_storage.writers", "observatory_storage.recording")
_RETRY_SECS: Final = 30.0


def is_of_storage(logger: str | None, thread: str | None) -> bool:
    """Whether a record tells of storing records, so that storing it could go on forever."""
    name = threading.current_thread().name if thread is None else thread
    return name.startswith(_THREADS) or (logger or "").startswith(_LOGGERS)


class LogSink:
    """Buffers log records, and never raises or waits.

    Args:
        pool: the pool, or a function that returns the pool of a record; None for `shared_pool`.
        service_name: the service of all records; None leaves it unknown.
        resource_attributes: attributes of all records' resource.
        config: how records are buffered. When the buffer is full, records are lost.
        flush_timeout_secs: the seconds that `flush` and `close` wait.

    Raises:
        ValidationError: an argument has the wrong type.

    Attributes:
        losses: counts the records that could not be stored.
    """

    def __init__(
        self,
        pool: PoolSource,
        service_name: str | None,
        resource_attributes: Mapping[str, Any] | None,
        config: WriterConfig,
        flush_timeout_secs: float,
    ) -> None:
        self._find_pool = _function_of(pool)
        span_validation.name("service_name", service_name)
        span_validation.attributes("resource_attributes", resource_attributes or {})
        span_validation.number("flush_timeout_secs", flush_timeout_secs)
        if not flush_timeout_secs > 0:
            raise ValidationError("flush_timeout_secs", flush_timeout_secs, "must be above 0")
        # Not "drop": only an error tells that a record was lost.
        self._config = replace(
            config, on_full="raise", on_rejected=lambda _row, error: self.losses.add(error)
        )
        self._timeout_secs = flush_timeout_secs
        self._resource = dict(resource_attributes or {})
        if service_name is not None:
            self._resource["service.name"] = service_name
        self._resources: dict[int | None, dict[str, Any]] = {}
        # By the id of the pool, which keeps its writer alive.
        self._writers: weakref.WeakValueDictionary[int, LogWriter] = weakref.WeakValueDictionary()
        self._not_before = 0.0
        self._busy = threading.local()
        self._closed = False
        self._leave_pools: list[Callable[[], None]] = []
        self.losses = LossReport("log record", _to_stderr)
        keep_warnings_visible()

    def resource_of(self, pid: int | None) -> dict[str, Any]:
        """The resource attributes of records of a process."""
        found = self._resources.get(pid)
        if found is None:
            found = self._resource if pid is None else {**self._resource, "process.pid": pid}
            if len(self._resources) >= 64:  # children that log through a queue come and go
                self._resources.clear()
            self._resources[pid] = found
        return found

    def store(self, row: Mapping[str, Any]) -> None:
        """Buffer a row of `LogRecord`. Losses are counted."""
        self._busy.now = True
        try:
            writer = self._open_writer()
            if writer is not None:
                self._busy.stores = True
                writer.write_log(row)
        except Exception as error:  # noqa: BLE001 - the caller only wanted to log
            self.losses.add(error)
        finally:
            self._busy.now = self._busy.stores = False

    def refuses(self, logger: str | None, thread: str | None) -> bool:
        """Whether a record cannot be stored, because it tells of storing or comes from within.

        What the application's own code logs while a record is stored, such as `redact`, is lost
        and counted.
        """
        if is_of_storage(logger, thread):
            return True
        if getattr(self._busy, "stores", False):
            self.losses.add("it was logged while another one was stored")
        return self.is_busy

    @property
    def is_busy(self) -> bool:
        """Whether this thread is storing records, so that what it logs is about that."""
        return getattr(self._busy, "now", False)

    def flush(self) -> None:
        """Wait until buffered records are committed, within the timeout. Never raises."""
        for writer in [*self._writers.values()]:
            if not writer.closed:
                self._wait_for(writer, writer.flush)

    def close(self) -> None:
        """The same, and lose later records."""
        self._closed = True
        for writer in [*self._writers.values()]:
            self._close_writer(writer)
        while self._leave_pools:
            self._leave_pools.pop()()

    def _close_writer(self, writer: LogWriter) -> None:
        if not writer.closed:
            self._wait_for(writer, writer.close)
        elif self._writers.pop(id(writer.source), None) is not None and (
            left := writer.buffer_stats().buffered
        ):
            # The hooks at the end of the process have tried it for the last time.
            self.losses.add("the process ends", left)

    def _wait_for(self, writer: LogWriter, end: Callable[[float], object]) -> None:
        if not self._may_wait():
            return
        self._busy.now = True
        try:
            end(self._timeout_secs)
        except Exception as error:  # noqa: BLE001 - nobody who logs expects an error
            buffered = counted(writer.buffer_stats().buffered, "log record")
            self.losses.say(f"{buffered} could not be stored yet: {error}")
        finally:
            self._busy.now = False

    def _may_wait(self) -> bool:
        # `logging.config` closes handlers while it holds the lock that the threads which write the
        # records need to log something. They would wait for each other.
        is_owned = getattr(getattr(logging, "_lock", None), "_is_owned", None)
        return not self.is_busy and not (is_owned is not None and is_owned())

    def _open_writer(self) -> LogWriter | None:
        if self._closed:
            raise StorageError("the handler is closed")
        if time.monotonic() < self._not_before:
            self.losses.add_silently()  # it was told when it was tried
            return None
        try:
            pool = self._find_pool()
        except StorageError:
            # Reading the settings takes too long to be tried for every record.
            self._not_before = time.monotonic() + _RETRY_SECS
            raise
        return self._known_writer(pool) or self._new_writer(pool)

    def _known_writer(self, pool: StoragePool) -> LogWriter | None:
        writer = self._writers.get(id(pool))
        # Another pool may have got the id of one that is gone.
        return writer if writer is not None and writer.source is pool else None

    def _new_writer(self, pool: StoragePool) -> LogWriter:
        if not isinstance(pool, StoragePool):
            raise ValidationError("pool", type(pool), "the function must return a StoragePool")
        if pool.closed:
            raise PoolError("the pool is closed", retryable=False)
        made = LogWriter(pool, self._config)
        with process_lock():
            writer = self._known_writer(pool)  # another thread may have been first
            if writer is None:
                writer = self._writers[id(pool)] = made
                close = partial(self._close_writer, made)
                self._leave_pools.append(pool.before_close(close))
        return writer


def _function_of(pool: object) -> Callable[[], StoragePool]:
    if pool is None:
        return shared_pool
    if isinstance(pool, StoragePool):
        return lambda: pool
    if callable(pool):
        return pool
    # The value is not shown: it may be a URL with a password.
    rule = "must be a StoragePool, a function that returns one, or None"
    raise ValidationError("pool", type(pool), rule)


def _to_stderr(report: str) -> None:
    if logging.raiseExceptions and sys.stderr is not None:
        sys.stderr.write(f"observatory_storage: {report}\n")
