"""Where `StorageHandler` and `StructlogProcessor` put log records: a `LogWriter` of their own."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from observatory_storage.errors import StorageError, ValidationError
from observatory_storage.llm import span_validation
from observatory_storage.pool import StoragePool
from observatory_storage.processes import process_lock
from observatory_storage.recording.loss_report import LossReport
from observatory_storage.shared_pool import shared_pool
from observatory_storage.wording import counted
from observatory_storage.writers import LogWriter, WriterConfig
from observatory_storage.writers.config import Redact

__all__ = ["LogSink", "is_of_storage"]

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
        pool: the pool; None for `shared_pool`.
        service_name: the service of all records; None leaves it unknown.
        resource_attributes: attributes of all records' resource.
        batch_size: as `WriterConfig` has it, and so are the following four.
        flush_interval_secs: the same.
        max_buffered: the same. When the buffer is full, records are lost.
        spool_dir: the same.
        redact: the same.
        flush_timeout_secs: the seconds that `flush` and `close` wait.

    Raises:
        ValidationError: an argument has the wrong type.

    Attributes:
        losses: counts the records that could not be stored.
    """

    def __init__(
        self,
        pool: StoragePool | None,
        service_name: str | None,
        resource_attributes: Mapping[str, Any] | None,
        *,
        batch_size: int,
        flush_interval_secs: float,
        max_buffered: int,
        spool_dir: str | os.PathLike[str] | None,
        redact: Redact | None,
        flush_timeout_secs: float,
    ) -> None:
        if pool is not None and not isinstance(pool, StoragePool):
            # The value is not shown: it may be a URL with a password.
            raise ValidationError("pool", type(pool), "must be a StoragePool, or None")
        span_validation.name("service_name", service_name)
        span_validation.attributes("resource_attributes", resource_attributes or {})
        span_validation.number("flush_timeout_secs", flush_timeout_secs)
        if not flush_timeout_secs > 0:
            raise ValidationError("flush_timeout_secs", flush_timeout_secs, "must be above 0")
        self._pool = pool
        # Not "drop": only an error tells that a record was lost.
        self._config = WriterConfig(
            batch_size=batch_size,
            flush_interval_secs=flush_interval_secs,
            max_buffered=max_buffered,
            spool_dir=spool_dir,
            redact=redact,
            on_full="raise",
            on_rejected=lambda _row, error: self.losses.add(error),
        )
        self._timeout_secs = flush_timeout_secs
        self._resource = dict(resource_attributes or {})
        if service_name is not None:
            self._resource["service.name"] = service_name
        self._resources: dict[int | None, dict[str, Any]] = {}
        self._writer: LogWriter | None = None
        self._not_before = 0.0
        self._busy = threading.local()
        self._closed = False
        self._leave_pool: Callable[[], None] | None = None
        self.losses = LossReport("log record", _to_stderr)

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
        self._busy.now = self._busy.stores = True
        try:
            writer = self._open_writer()
            if writer is not None:
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
        if self._writer is not None and not self._writer.closed:
            self._wait_for(self._writer, self._writer.flush)

    def close(self) -> None:
        """The same, and lose later records."""
        writer, self._closed = self._writer, True
        if self._leave_pool is not None:
            self._leave_pool()
        if writer is None:
            return
        if not writer.closed:
            self._wait_for(writer, writer.close)
        elif left := writer.buffer_stats().buffered:
            # The hooks at the end of the process have tried it for the last time.
            self._writer = None
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
        if self._writer is not None:
            return self._writer
        if time.monotonic() < self._not_before:
            self.losses.lost += 1  # told when it was tried
            return None
        try:
            pool = self._pool or shared_pool()
        except StorageError:
            # Reading the settings takes too long to be tried for every record.
            self._not_before = time.monotonic() + _RETRY_SECS
            raise
        made = LogWriter(pool, self._config)
        with process_lock():
            if self._writer is None:  # another thread may have been first
                self._writer = made
                self._leave_pool = pool.before_close(self.close)
        return self._writer


def _to_stderr(report: str) -> None:
    if logging.raiseExceptions and sys.stderr is not None:
        sys.stderr.write(f"observatory_storage: {report}\n")
